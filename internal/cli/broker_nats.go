//go:build nats

package cli

import "tunesmith/federation/broker"

func init() { embeddedBroker = broker.Start }
