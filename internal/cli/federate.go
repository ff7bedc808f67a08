package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tunesmith/federation"
	"tunesmith/runs"
	"tunesmith/trainer"
	"tunesmith/tune"
)

func (a *app) federate() *cobra.Command {
	c := &cobra.Command{
		Use:   "federate",
		Short: "Tune one model with several owners of data, which stay where they are",
	}
	c.AddCommand(a.federateInit(), a.federateServer(), a.federateClient(), a.federateSimulate())
	return c
}

// embeddedBroker starts a NATS server in this process, in builds that hold one.
var embeddedBroker func(config string) (stop func(), err error)

// federated returns a run file's federation, and sets the run's length by it.
func federated(c *tune.Run) (*federation.Settings, error) {
	m, ok := c.Topology.Options.(federation.Method)
	if !ok {
		var names []string
		for _, x := range tune.Methods(tune.TopologyAxis) {
			if _, ok := x.New().(federation.Method); ok {
				names = append(names, x.Name)
			}
		}
		return nil, fmt.Errorf("topology.method: want %s for a federation, have %q", strings.Join(names, " or "), c.Topology.Name)
	}
	set := m.Federation()
	c.Epochs, c.MaxSteps = 0, set.Rounds*set.LocalSteps
	return set, nil
}

func (a *app) federateInit() *cobra.Command {
	var clients, sets []string
	var address, name string
	var valid time.Duration
	c := &cobra.Command{
		Use:   "init DIR RUN.yaml",
		Short: "Make the server's and the clients' directories: run file, certificates, join tokens",
		Long: "init makes DIR/server and one directory a client, each with the run file, a certificate and the public keys of\n" +
			"all, and for each client a join token. Give each owner its directory by a safe way, and keep no copy.",
		Example: "  tunesmith federate init hospitals run.yaml --clients north,south,west --address fed.example.org:4222",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := tune.Schema().Load(args[1], sets)
			if err != nil {
				return err
			}
			if _, err := federated(r.Value); err != nil {
				return err
			}
			var text bytes.Buffer
			if err := tune.Schema().Write(&text, r.Value); err != nil {
				return err
			}
			if name == "" {
				name = strings.ToLower(filepath.Base(args[0]))
			}
			err = federation.Found(args[0], federation.Founding{ID: name, Address: address, Clients: clients, Run: text.Bytes(), Valid: valid})
			if err != nil {
				return err
			}
			a.say("made %s with the server and %d clients\nstart the server: tunesmith federate server %s", args[0], len(clients), filepath.Join(args[0], federation.ServerName))
			a.say("start a client:   tunesmith federate client %s --data its-data.jsonl", filepath.Join(args[0], "clients", clients[0]))
			return nil
		},
	}
	c.Flags().StringSliceVar(&clients, "clients", nil, "names of the clients, with commas")
	c.Flags().StringVar(&address, "address", "localhost:4222", "host:port at which the clients reach the server")
	c.Flags().StringVar(&name, "name", "", "name of the federation; the directory's where it is left out")
	c.Flags().DurationVar(&valid, "valid", 365*24*time.Hour, "how long the certificates are valid")
	c.Flags().StringArrayVar(&sets, "set", nil, "set a key of the run file, as in topology.rounds=20; may be given again")
	_ = c.MarkFlagRequired("clients") // the flag is there
	return c
}

// member is what the commands of a server and a client have in common.
type member struct {
	app     *app
	id      *federation.Identity
	run     *tune.Run
	set     *federation.Settings
	session *trainer.Session
	machine *federation.Machine
}

// open reads a member's directory.
func (a *app) openMember(dir, model string) (*member, error) {
	id, err := federation.OpenIdentity(dir)
	if err != nil {
		return nil, err
	}
	r, err := tune.Schema().Load(filepath.Join(dir, federation.RunFile), nil)
	if err != nil {
		return nil, err
	}
	m := &member{app: a, id: id, run: r.Value}
	if model != "" {
		m.run.Model = model
	}
	m.set, err = federated(m.run)
	return m, err
}

// prepare opens the model, with the data where there are some.
func (m *member) prepare(ctx context.Context, prepare func(context.Context, *tune.Run, trainer.Files) (*trainer.Session, error)) error {
	path, err := modelPath(m.run.Model)
	if err != nil {
		return err
	}
	m.session, err = prepare(ctx, m.run, trainer.Files{Model: path})
	m.app.problems(m.session.Ledger)
	if err != nil {
		return err
	}
	m.machine, err = newMachine(m.session, m.set, path)
	return err
}

func newMachine(s *trainer.Session, set *federation.Settings, path string) (*federation.Machine, error) {
	files, err := hashes(path)
	if err != nil {
		return nil, err
	}
	var parts []string
	for _, f := range files {
		if name := filepath.Base(f.Path); filepath.Ext(name) != ".json" || name == "config.json" || strings.HasSuffix(name, "index.json") {
			parts = append(parts, f.SHA256)
		}
	}
	return federation.NewMachine(s, set, federation.TaskOf(0, []byte(strings.Join(parts, " "))))
}

// save writes parameters as an adapter, or as a whole model.
func (m *member) save(tensors []federation.Tensor, name string) error {
	return m.machine.With(tensors, func(s *trainer.Session) error {
		dir := filepath.Join(m.id.Dir, name)
		contract := ""
		if s.Text.Template != nil {
			contract = s.Text.Template.Contract()
		}
		if _, ok := s.Graft.(tune.PEFTWriter); ok {
			err := tune.SaveAdapter(dir, s.Graft, s.Model.Sites, s.Model.Store, tune.AdapterInfo{Base: m.run.Model, Contract: contract, Version: version()})
			if err == nil {
				m.app.say("saved %s", dir)
			}
			return err
		}
		if err := saveModel(dir, s.Model, s.Text, "F32"); err != nil {
			return err
		}
		m.app.say("saved %s", dir)
		return nil
	})
}

// broker starts the NATS server of a server's directory: embedded, or the one of this machine. It returns where it is.
func (m *member) broker() (url string, stop func(), err error) {
	_, port, err := net.SplitHostPort(m.id.Address)
	if err != nil {
		return "", nil, err
	}
	url = "tls://localhost:" + port
	config := filepath.Join(m.id.Dir, federation.BrokerFile)
	if embeddedBroker != nil {
		stop, err = embeddedBroker(config)
		return url, stop, err
	}
	program, err := exec.LookPath("nats-server")
	if err != nil {
		return "", nil, fmt.Errorf("this build has no NATS server and nats-server is not installed; install it, build with -tags nats, or give --url of one that runs with %s", config)
	}
	c := exec.Command(program, "-c", config)
	c.Stderr = m.app.err
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	return url, func() { _ = errors.Join(c.Process.Signal(os.Interrupt), c.Wait()) }, nil
}

// showRound shows a round as a line.
func (a *app) showRound(r federation.Round, of int) {
	line := fmt.Sprintf("round %d/%d  %d of %d clients  loss %.4f", r.Number, of, len(r.Took), len(r.Drawn), r.Loss)
	if r.HeldMean > 0 {
		line += fmt.Sprintf("  held-out %.4f", r.HeldMean)
	}
	if r.Mismatch > 0 {
		line += fmt.Sprintf("  mismatch %.3f", r.Mismatch)
	}
	if r.Epsilon > 0 {
		line += fmt.Sprintf("  ε %.3f", r.Epsilon)
	}
	var up, down int64
	for _, n := range r.Received {
		up += n
	}
	for _, n := range r.Sent {
		down += n
	}
	line += fmt.Sprintf("  %s up  %s down  %.1f s", size(up), size(down), r.Seconds)
	for name, why := range r.Refused {
		line += fmt.Sprintf("\n  %s: %s", name, why)
	}
	if len(r.Late) > 0 {
		line += "\n  late: " + strings.Join(r.Late, ", ")
	}
	fmt.Fprintln(a.err, line)
}

func (a *app) federateServer() *cobra.Command {
	var url string
	c := &cobra.Command{
		Use:   "server DIR",
		Short: "Lead a federation, or go on with one",
		Long: "server starts the NATS server of DIR, waits for the clients, leads the rounds and writes the result. One that was\n" +
			"stopped or killed goes on where it was. With --url it uses a NATS server that runs with DIR/" + federation.BrokerFile + ".",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			m, err := a.openMember(args[0], "")
			if err != nil {
				return err
			}
			lock, err := runs.Lock(filepath.Join(args[0], "lock"))
			if err != nil {
				return err
			}
			defer lock.Close()
			if m.id.Name != federation.ServerName {
				return usageError{fmt.Errorf("%s belongs to the client %s, not to the server", args[0], m.id.Name)}
			}
			if err := m.prepare(c.Context(), trainer.PrepareModel); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.session.Close()) }()
			if url == "" {
				at, stop, err := m.broker()
				if err != nil {
					return err
				}
				defer stop()
				url = at
			}
			return m.lead(c.Context(), url)
		},
	}
	c.Flags().StringVar(&url, "url", "", "NATS server to use, such as tls://nats.example.org:4222, instead of an own one")
	return c
}

func (m *member) lead(ctx context.Context, url string) (err error) {
	at := m.id.At(url)
	at.Log = slog.Default()
	link, err := federation.DialServer(ctx, at, m.id.Members.Clients())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	s := &federation.Server{
		Federation: m.id.Federation, Key: m.id.Key, Members: m.id.Members, Tokens: m.id.Tokens, Machine: m.machine, Link: link, Dir: m.id.Dir,
		Log: slog.Default(), Progress: func(r federation.Round) { m.app.showRound(r, m.set.Rounds) },
	}
	final, err := s.Run(ctx)
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(m.id.Dir, "federation.json"), s.History()); err != nil {
		return err
	}
	if err := m.save(final, runs.AdapterDir); err != nil {
		return err
	}
	if m.app.json {
		return m.app.result(s.History())
	}
	return nil
}

func (a *app) federateClient() *cobra.Command {
	var url, model string
	var sources []string
	c := &cobra.Command{
		Use:   "client DIR",
		Short: "Take part in a federation with the data of this machine",
		Long: "client joins the federation of DIR and trains when the server asks. The data stay here: DIR/card.json says what\n" +
			"has left. One that was stopped or killed goes on where it was.",
		Example: "  tunesmith federate client north --data records.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			m, err := a.openMember(args[0], model)
			if err != nil {
				return err
			}
			lock, err := runs.Lock(filepath.Join(args[0], "lock"))
			if err != nil {
				return err
			}
			defer lock.Close()
			if len(sources) > 0 {
				m.run.Data = nil
				for _, path := range sources {
					m.run.Data = append(m.run.Data, tune.Data{Path: path})
				}
			}
			if err := m.prepare(c.Context(), trainer.Prepare); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.session.Close()) }()
			return m.join(c.Context(), url)
		},
	}
	c.Flags().StringVar(&url, "url", "", "NATS server, where it is not at the federation's address")
	c.Flags().StringVarP(&model, "model", "m", "", "where the base model is on this machine")
	c.Flags().StringArrayVar(&sources, "data", nil, "file, folder or pattern of the data; may be given again")
	return c
}

func (m *member) join(ctx context.Context, url string) (err error) {
	learner, err := m.learner()
	if err != nil {
		return err
	}
	at := m.id.At(url)
	at.Log = slog.Default()
	link, err := federation.DialClient(ctx, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	c := &federation.Client{
		Name: m.id.Name, Key: m.id.Key, Members: m.id.Members, Federation: m.id.Federation, Token: m.id.Token, Learner: learner, Link: link,
		Dir: m.id.Dir, Log: slog.Default(),
	}
	final, err := c.Run(ctx)
	if err != nil {
		return err
	}
	if err := m.save(final, runs.AdapterDir); err != nil {
		return err
	}
	if m.set.PersonalSteps == 0 {
		return nil
	}
	own, err := learner.Personalize(ctx, final)
	if err != nil {
		return err
	}
	return m.save(own, "personal")
}

func (m *member) learner() (*federation.Learner, error) {
	secret, err := federation.Secret(m.id.Dir)
	if err != nil {
		return nil, err
	}
	return federation.NewLearner(m.machine, m.id.Name, secret, m.session.Examples, m.session.Held)
}

func (a *app) federateSimulate() *cobra.Command {
	var sets []string
	var clients int
	c := &cobra.Command{
		Use:   "simulate RUN.yaml",
		Short: "Run a federation in this process, the data shared out among its clients",
		Long: "simulate shares the run file's data out among clients as topology.partition says and runs the same server and\n" +
			"clients in one process. train does the same for a run file whose topology is a federation.",
		Example: "  tunesmith federate simulate run.yaml --clients 8 --set topology.partition.kind=dirichlet",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if clients > 0 {
				sets = append(sets, "topology.clients="+strconv.Itoa(clients))
			}
			r, err := tune.Schema().Load(args[0], sets)
			if err != nil {
				return err
			}
			if _, err := federated(r.Value); err != nil {
				return err
			}
			_, err = a.run(c.Context(), r.Value, strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])))
			return err
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "set a key of the run file, as in topology.rounds=20; may be given again")
	c.Flags().IntVar(&clients, "clients", 0, "number of clients; topology.clients where it is left out")
	return c
}

// federate trains a run as a federation that is simulated here, and leaves the result in the session.
func (e *experiment) federate(ctx context.Context, set *federation.Settings) error {
	path, err := modelPath(e.config.Model)
	if err != nil {
		return err
	}
	machine, err := newMachine(e.session, set, path)
	if err != nil {
		return err
	}
	s := federation.Simulation{Machine: machine, Dir: filepath.Join(e.dir.Dir(), "federation"), Log: slog.Default()}
	if !e.app.json {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.Progress = func(r federation.Round) {
		e.app.showRound(r, set.Rounds)
		loss := runs.Metric{Step: r.Number * set.LocalSteps, Split: runs.Train, Epoch: float64(r.Number), Loss: runs.Number(r.Loss)}
		if err := e.dir.Metric(loss); err != nil {
			slog.Error("a metric is lost", "error", err)
		}
	}
	out, err := s.Run(ctx)
	if err != nil {
		return err
	}
	report := struct {
		Rounds   []federation.Round  `json:"rounds"`
		Examples map[string]int      `json:"examples"`
		Traffic  *federation.Traffic `json:"traffic"`
		Held     map[string]float64  `json:"held_out"`
		Personal map[string]float64  `json:"personal,omitempty"`
	}{out.History, out.Sizes, out.Traffic, out.Alone, out.Own}
	if err := writeJSON(filepath.Join(e.dir.Dir(), "federation.json"), report); err != nil {
		return err
	}
	e.app.clients(out)
	return machine.With(out.Final, func(*trainer.Session) error { return nil })
}

// clients shows what each client has of the result.
func (a *app) clients(out federation.Simulated) {
	if a.json {
		return
	}
	const most = 20
	var rows [][]string
	for i := 1; i <= len(out.Sizes) && i <= most; i++ {
		name := fmt.Sprintf("client-%03d", i)
		row := []string{name, thousands(out.Sizes[name]), "", ""}
		if l, ok := out.Alone[name]; ok {
			row[2] = fmt.Sprintf("%.4f", l)
		}
		if l, ok := out.Own[name]; ok {
			row[3] = fmt.Sprintf("%.4f", l)
		}
		rows = append(rows, row)
	}
	a.say("%s", a.grid([]string{"client", "examples", "held-out loss", "with personal steps"}, rows))
	sent, received := out.Traffic.Totals()
	a.say("%s up, %s down in all", size(received), size(sent))
}
