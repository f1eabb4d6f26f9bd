package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultGrace is how long handlers may go on when the plugin ends.
const DefaultGrace = 5 * time.Second

// listenArg is the first argument of a plugin that waits for a host to attach.
const listenArg = "--pipeplug-listen"

// Guest is a plugin. Its zero value is one that answers nothing.
type Guest struct {
	// Handler answers the host. Commands of services do not come to it.
	Handler Handler
	// Services are what the host calls by methods.
	Services []*Service
	// Metadata is what the plugin says of itself: "Description", "Help" and so on.
	Metadata map[string]string
	// Name is for messages. Default: that of the program.
	Name string
	// Start runs before any command is handled, when the configuration is known. The host waits for
	// it. An error or a panic ends the plugin, and the host's start fails with its text.
	Start func(ctx context.Context, host *Conn) error
	// InterfaceVersions are the versions of the application's interface that the plugin speaks.
	InterfaceVersions []uint32
	// LogLevel is called when the host sets the level of the log: "off" to "trace". It must not block.
	LogLevel func(level string)
	// Format is for a plugin that speaks one format only. Default: that of the host.
	Format Format
	// Grace is how long handlers may go on at the end. Default: DefaultGrace.
	Grace time.Duration
	// Options are the limits of the connection.
	Options Options
	// Args are the arguments of the process without the program. Default: os.Args[1:].
	Args []string
}

// Main serves a plugin and exits: with 0 after the host has said stop, 1 after it was lost or if the
// start failed, and 2 if there is no host. It never returns.
func Main(handler Handler) { (&Guest{Handler: handler}).Main() }

// Serve serves a plugin until its host says stop.
func Serve(ctx context.Context, handler Handler) error {
	return (&Guest{Handler: handler}).Serve(ctx)
}

// Main is Serve, and exits. It never returns.
func (g *Guest) Main() {
	err := g.Serve(context.Background())
	if err != nil {
		if errors.Is(err, ErrByHand) {
			fmt.Fprintln(os.Stderr, err)
		} else {
			fmt.Fprintf(os.Stderr, "%s: %v\n", g.name(), err)
		}
	}
	os.Exit(ExitCode(err))
}

// ExitCode is the exit status for an error of Serve.
func ExitCode(err error) int {
	var setup *setupError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrByHand), errors.As(err, &setup):
		return 2
	}
	return 1
}

// setupError is a descriptor or socket that cannot be used.
type setupError struct{ error }

func (e *setupError) Unwrap() error { return e.error }

func (g *Guest) name() string {
	if g.Name != "" {
		return g.Name
	}
	return filepath.Base(os.Args[0])
}

// OwnArgs returns the arguments of the plugin itself: those of the process without what its host has
// put before them.
func OwnArgs() []string {
	_, rest := splitArgs(os.Args[1:])
	return rest
}

// splitArgs takes what belongs to the protocol from the arguments.
func splitArgs(args []string) (protocol, rest []string) {
	if len(args) >= 2 && (args[0] == listenArg || (isDescriptor(args[0]) && isDescriptor(args[1]))) {
		return args[:2], args[2:]
	}
	return nil, args
}

// Serve takes the connection to the host and serves it. It returns nil after the host has said stop,
// ErrHostGone if the host went without, ErrByHand if there is none, and ctx.Err() at the end of ctx.
// Standard input and output are the connection's if the host has named no others: what the program
// prints goes to standard error then.
func (g *Guest) Serve(ctx context.Context) error {
	if err := checkContext(ctx); err != nil {
		return &setupError{err}
	}
	if err := checkSettings("Guest", g.Options, g.Services, map[string]time.Duration{"Grace": g.Grace}); err != nil {
		return &setupError{err}
	}
	args := g.Args
	if args == nil {
		args = os.Args[1:]
	}
	in, out, blocking, told, err := g.connect(args)
	if err != nil {
		return err
	}
	ignoreBrokenPipes()
	c, err := newConn("the host", g.Format, g.Options, in, out, blocking)
	if err != nil {
		return &setupError{err}
	}
	s := &serving{guest: g, conn: c, told: told, result: make(chan error, 1), started: make(chan struct{})}
	c.base = ctx
	name := g.name()
	c.logf = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, name+": "+format+"\n", args...)
	}
	c.services = g.Services
	c.handler = routeServices(g.Services, g.Handler)
	c.metadata = s.asked
	c.stopped = s.stopped
	c.logLevel = g.LogLevel
	c.onEnd = s.ended
	if g.Start != nil || len(g.InterfaceVersions) > 0 {
		c.hold = s.holds
	} else {
		s.over()
	}
	c.start()
	select {
	case err = <-s.result:
	case <-ctx.Done():
		c.closeOutput()
		c.ended(ctx.Err())
		c.closeInput()
		return ctx.Err()
	}
	return err
}

func (g *Guest) byHand() error {
	path := os.Args[0]
	if !strings.Contains(path, "/") {
		path = "./" + path
	}
	return &wrapped{ErrByHand, fmt.Sprintf("%s is a plugin, which a host starts; try: pipeplug run %s --call COMMAND [DATA]", g.name(), path)}
}
