package pipeplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	// it. An error ends the plugin, and the host's start fails with its text.
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

// serving is a guest at work.
type serving struct {
	guest  *Guest
	conn   *Conn
	told   bool // the host has named the descriptors
	result chan error

	mu      sync.Mutex
	stop    bool
	state   startState
	started chan struct{} // closed when the start is over
	held    []*Request
	pending []*Request // GetMetadata, until the start is over
}

type startState int

const (
	startWaits startState = iota
	startRuns
	startOver
)

// Serve takes the connection to the host and serves it. It returns nil after the host has said stop,
// ErrHostGone if the host went without, ErrByHand if there is none, and ctx.Err() at the end of ctx.
// Standard input and output are the connection's if the host has named no others: what the program
// prints goes to standard error then.
func (g *Guest) Serve(ctx context.Context) error {
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

// features are those that the guest names.
func (g *Guest) features() uint32 {
	features := ownFeatures | featureConfig
	if g.LogLevel != nil {
		features |= featureLog
	}
	return features
}

// asked takes the host's GetMetadata.
func (s *serving) asked(req *Request) {
	c := s.conn
	host, _ := parseMetadata(req.Data)
	req.Data = nil
	if host == nil {
		host = map[string]string{}
	}
	s.mu.Lock()
	first := len(s.pending) == 0 && c.PeerMetadata() == nil
	s.mu.Unlock()
	if first {
		c.meet(host)
		c.features.Store(c.features.Load() &^ featureFlow)
		if level, ok := host[keyLogLevel]; ok {
			c.setLogLevel(level)
		}
		if err := c.agree(s.guest.InterfaceVersions, host); err != nil {
			// The host has the answer, and says the same of both.
			s.answer(req)
			c.w.waitWritten(time.After(s.grace()))
			s.end(err)
			return
		}
	}
	s.mu.Lock()
	switch s.state {
	case startWaits:
		s.pending, s.state = append(s.pending, req), startRuns
		s.mu.Unlock()
		go s.start()
	case startRuns:
		s.pending = append(s.pending, req)
		s.mu.Unlock()
	default:
		s.mu.Unlock()
		s.answer(req)
	}
}

// holds keeps requests until the start is over.
func (s *serving) holds(req *Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == startOver {
		return false
	}
	if len(s.held) == 0 && s.state == startWaits {
		// A host that asks for no metadata.
		time.AfterFunc(200*time.Millisecond, s.startNow)
	}
	s.held = append(s.held, req)
	// Streams and cancels find it in the table.
	if c := s.conn; !req.oneWay || req.parts != nil {
		c.mu.Lock()
		c.requests[req.id] = req
		req.listed = true
		c.mu.Unlock()
	}
	return true
}

// startNow starts without waiting for the host's metadata any longer.
func (s *serving) startNow() {
	s.mu.Lock()
	waits := s.state == startWaits
	if waits {
		s.state = startRuns
	}
	s.mu.Unlock()
	if waits {
		s.start()
	}
}

// over notes that the start is over.
func (s *serving) over() {
	s.state = startOver
	close(s.started)
}

// settle waits until what has come before the start was over is let in, as nothing more comes.
func (s *serving) settle(timeout <-chan time.Time) {
	s.mu.Lock()
	waits, idle := s.state == startWaits, len(s.held) == 0
	s.mu.Unlock()
	if waits && idle {
		return // the host has asked nothing
	}
	go s.startNow()
	select {
	case <-s.started:
	case <-timeout:
	}
}

// start runs the start call-back, and lets in what has waited.
func (s *serving) start() {
	c := s.conn
	if s.guest.Start != nil {
		if err := s.guest.Start(c.base, c); err != nil {
			s.end(fmt.Errorf("the start failed: %w", err))
			return
		}
	}
	for {
		s.mu.Lock()
		pending, held := s.pending, s.held
		s.pending, s.held = nil, nil
		if len(pending) == 0 && len(held) == 0 {
			s.over()
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		for _, req := range pending {
			s.answer(req)
		}
		for _, req := range held {
			c.admit(req, fromStart)
		}
	}
	c.w.flush()
}

// answer sends the metadata.
func (s *serving) answer(req *Request) {
	c := s.conn
	object := map[string]string{}
	for key, value := range s.guest.Metadata {
		object[key] = value
	}
	for key, value := range c.offer(s.guest.features(), s.guest.InterfaceVersions) {
		object[key] = value
	}
	if _, ok := object[keyName]; !ok {
		object[keyName] = s.guest.name()
	}
	text, err := json.Marshal(object)
	if err != nil {
		c.refuse(req.id, request, err, cmdMetadata)
	} else {
		c.respond(req.id, cmdMetadata, text)
	}
	c.mu.Lock()
	c.flows = c.accepts.Load()&featureFlow != 0
	c.features.Store(c.accepts.Load())
	c.mu.Unlock()
	c.w.flush()
}

func (s *serving) grace() time.Duration {
	if s.guest.Grace > 0 {
		return s.guest.Grace
	}
	return DefaultGrace
}

// stopped is the host's cmd.stop: what it has asked is answered, then the plugin ends.
func (s *serving) stopped() {
	s.mu.Lock()
	again := s.stop
	s.stop = true
	s.mu.Unlock()
	if again {
		return
	}
	go s.finish()
}

func (s *serving) finish() {
	c := s.conn
	c.mu.Lock()
	if !c.isStopping {
		c.isStopping = true
		close(c.stopping)
	}
	c.mu.Unlock()
	timeout := time.After(s.grace())
	s.settle(timeout)
	if !c.waitIdle(timeout) {
		c.logf("stopped with handlers still at work after %v", s.grace())
	}
	c.w.waitWritten(timeout)
	s.end(nil)
}

// ended is the end of the connection.
func (s *serving) ended(cause error) {
	c := s.conn
	timeout := time.After(s.grace())
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if stop {
		return // finish is at work
	}
	s.settle(timeout)
	if !c.waitIdle(timeout) {
		c.logf("handlers were still at work %v after the host was gone", s.grace())
	}
	c.w.waitWritten(timeout)
	switch {
	case !s.told && !c.received.Load() && cause == errPeerClosed:
		s.end(s.guest.byHand())
	default:
		s.end(&wrapped{ErrHostGone, fmt.Sprintf("the host is gone: %v", cause)})
	}
}

// end gives the result, once.
func (s *serving) end(err error) {
	select {
	case s.result <- err:
	default:
		return
	}
	s.conn.closeOutput()
	s.conn.ended(errors.New("this side has closed the connection"))
	s.conn.closeInput()
}

func (g *Guest) byHand() error {
	path := os.Args[0]
	if !strings.Contains(path, "/") {
		path = "./" + path
	}
	return &wrapped{ErrByHand, fmt.Sprintf("%s is a plugin, which a host starts; try: pipeplug run %s --call COMMAND [DATA]", g.name(), path)}
}
