package federation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"tunesmith/federation/broker"
)

// found makes a federation with its NATS server's configuration at a free port.
func found(t *testing.T, clients ...string) (dir string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "fed")
	if err := Found(dir, Founding{ID: "fed", Address: address, Clients: clients, Run: []byte("model: tinybase\n"), Valid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func identity(t *testing.T, dir string) *Identity {
	t.Helper()
	id, err := OpenIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestNATS: long messages go both ways, what is not acknowledged survives the server, and strangers stay outside.
func TestNATS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := found(t, "north", "south")
	config := filepath.Join(dir, ServerName, BrokerFile)
	stop, err := broker.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := DialServer(ctx, identity(t, filepath.Join(dir, ServerName)).At(""), []string{"north", "south"})
	if err != nil {
		t.Fatal(err)
	}
	id := identity(t, filepath.Join(dir, "clients", "north"))
	north, err := DialClient(ctx, id.At(""))
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("0123456789abcdef"), 100000) // four parts
	for _, way := range []struct {
		from, to   Link
		name, want string
	}{{server, north, "north", ServerName}, {north, server, ServerName, "north"}} {
		if err := way.from.Send(ctx, way.name, long); err != nil {
			t.Fatal(err)
		}
		d, err := way.to.Receive(ctx)
		if err != nil || d.From != way.want || !bytes.Equal(d.Data, long) {
			t.Fatalf("want %d bytes of %s, have %d of %s, %v", len(long), way.want, len(d.Data), d.From, err)
		}
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
	}

	// A client has its own subjects and no other's.
	c, err := nats.Connect(id.At("").URL, nats.Secure(id.TLS), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, subject := range []string{upSubject("fed", "south"), downSubject("fed", "north"), "$JS.API.STREAM.DELETE." + upStream("fed")} {
		if err := c.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := c.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("publishing on %s: want a violation, have %v", subject, err)
		}
	}

	// A certificate of another authority is refused at once, with the name of who is refused.
	other := identity(t, filepath.Join(found(t, "north"), "clients", "north")).At(id.At("").URL)
	if _, err := DialClient(ctx, other); err == nil || !strings.Contains(err.Error(), "refuses north") {
		t.Errorf("want the stranger refused, have %v", err)
	}

	// What was sent before the server went away arrives after it is back.
	if err := north.Send(ctx, ServerName, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	if stop, err = broker.Start(config); err != nil {
		t.Fatal(err)
	}
	defer stop()
	if server, err = DialServer(ctx, identity(t, filepath.Join(dir, ServerName)).At(""), []string{"north", "south"}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d, err := server.Receive(ctx)
	if err != nil || string(d.Data) != "kept" {
		t.Fatalf("want what was sent before, have %q, %v", d.Data, err)
	}
	// The client comes back by itself.
	if err := server.Send(ctx, "north", []byte("again")); err != nil {
		t.Fatal(err)
	}
	if d, err := north.Receive(ctx); err != nil || string(d.Data) != "again" {
		t.Errorf("want the next message, have %q, %v", d.Data, err)
	}
	if err := north.Close(); err != nil {
		t.Error(err)
	}
}

func TestFoundRefuses(t *testing.T) {
	for name, f := range map[string]Founding{
		"address": {ID: "fed", Address: "nowhere", Clients: []string{"a"}},
		"name":    {ID: "Fed eration", Address: "h:1", Clients: []string{"a"}},
		"none":    {ID: "fed", Address: "h:1"},
		"twice":   {ID: "fed", Address: "h:1", Clients: []string{"a", "a"}},
		"server":  {ID: "fed", Address: "h:1", Clients: []string{ServerName}},
		"dots":    {ID: "fed", Address: "h:1", Clients: []string{"a.>"}},
	} {
		dir := filepath.Join(t.TempDir(), "fed")
		if err := Found(dir, f); err == nil {
			t.Errorf("%s: want an error", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: want nothing written", name)
		}
	}
}

func TestOpenIdentityRefuses(t *testing.T) {
	dir := found(t, "north", "south")
	north, south := filepath.Join(dir, "clients", "north"), filepath.Join(dir, "clients", "south")
	// The certificate of another member does not fit.
	for _, file := range []string{certFile, keyFile} {
		b, err := os.ReadFile(filepath.Join(south, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(north, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenIdentity(north); err == nil || !strings.Contains(err.Error(), "not that of the member") {
		t.Errorf("want the wrong certificate refused, have %v", err)
	}
	if err := os.WriteFile(filepath.Join(south, MemberFile), []byte(`{"federation":"fed","more":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIdentity(south); err == nil {
		t.Error("want an unknown field refused")
	}
	if _, err := OpenIdentity(t.TempDir()); err == nil || !strings.Contains(err.Error(), "federate init") {
		t.Errorf("want an error that says how such a directory is made, have %v", err)
	}
}
