// Package cli is the command line: it reads flags, calls the rooms below, and shows what they report.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"tunesmith/config"
	"tunesmith/data"
	"tunesmith/device"
	_ "tunesmith/engine/cpu" // the backend of this machine
	_ "tunesmith/methods"    // the methods of all axes
)

// Exit codes by the kind of failure.
const (
	exitOther     = 1
	exitUsage     = 2
	exitConfig    = 3
	exitData      = 4
	exitMemory    = 5
	exitNotFound  = 6
	exitDeferred  = 75 // sysexits' "try again later"
	exitCancelled = 130
)

// app is what the commands share.
type app struct {
	in   io.Reader
	out  io.Writer
	err  io.Writer
	json bool
	lang string
}

// usageError is a wrong use of a command.
type usageError struct{ error }

// Run runs the program and returns its exit code.
func Run(args []string, in io.Reader, out, errOut io.Writer) int {
	// Nearly all memory is a few long-lived blocks without pointers: collecting early costs little, and keeps what is
	// resident close to what is planned.
	debug.SetGCPercent(10)
	a := &app{in: in, out: out, err: errOut}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	slog.SetDefault(slog.New(tint.NewTextHandler(errOut, &tint.Options{NoColor: !a.colour(errOut), TimeFormat: "15:04:05"})))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintln(errOut, "error: "+err.Error())
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var conf config.Errors
	var bad *data.Error
	switch {
	case errors.Is(err, context.Canceled):
		return exitCancelled
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &bad), errors.Is(err, errFound):
		return exitData
	case errors.Is(err, device.ErrDeferred):
		return exitDeferred
	case errors.Is(err, errMemory), errors.Is(err, device.ErrMemory):
		return exitMemory
	case errors.As(err, &conf):
		if errors.Is(err, fs.ErrNotExist) {
			return exitNotFound
		}
		return exitConfig
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	return exitOther
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "tunesmith",
		Short:         "Adapt a language model to a task, and prove it",
		Long:          "tunesmith adapts a language model to a task and proves that it did: it trains, measures before and after,\nwatches what is forgotten, and hands over files that other tools load.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write results as JSON")
	root.PersistentFlags().StringVar(&a.lang, "lang", language(), "language of reports: en or zh")
	root.AddCommand(a.demo(), a.init(), a.train(), a.resume(), a.eval(), a.generate(), a.chat(), a.merge(), a.data(), a.pull(),
		a.bench(), a.runs(), a.device(), a.federate(), a.advise(), a.methods(), a.config(), a.adapter(), a.doctor(), a.selftest(), a.version())
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// wrapArgs makes a wrong number of arguments a usage error.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// language is the language that the environment asks for.
func language() string {
	for _, key := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(key); v != "" {
			if len(v) >= 2 && v[:2] == "zh" {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

// version is the module's version, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "0.1.0-dev+" + s.Value[:12]
		}
	}
	return "0.1.0-dev"
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, "tunesmith "+version())
			return err
		},
	}
}
