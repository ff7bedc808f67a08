// Package broker runs a NATS server inside the process. It is a package of its own because it makes a program that
// holds it 20 MB larger: the others speak to a server elsewhere.
package broker

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Start runs a NATS server by its configuration file until stop is called.
func Start(config string) (stop func(), err error) {
	o, err := server.ProcessConfigFile(config)
	if err != nil {
		return nil, fmt.Errorf("nats: %s: %w", config, err)
	}
	o.NoSigs, o.NoLog = true, true
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(15 * time.Second) {
		s.Shutdown()
		return nil, errors.New("nats: the embedded server does not come up; is its port free?")
	}
	return func() {
		s.Shutdown()
		s.WaitForShutdown()
	}, nil
}
