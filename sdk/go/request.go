package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// A Handler answers requests and takes one-ways. It is called by many goroutines at once.
//
// ctx ends when the caller has given the request up, at its deadline, when the connection ends, and
// when Handle has returned. The reply must not be changed afterwards. An error goes to the caller:
// with code and data if it is, or wraps, an *Error. A panic is answered with an error, too.
type Handler interface {
	Serve(ctx context.Context, req *Request) (reply []byte, err error)
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, req *Request) ([]byte, error)

// Serve calls f.
func (f HandlerFunc) Serve(ctx context.Context, req *Request) ([]byte, error) { return f(ctx, req) }

// Mux is a Handler that has one for each command. An unknown command is answered with the code
// "unknown_command".
type Mux struct {
	mu       sync.RWMutex
	handlers map[string]Handler
}

// NewMux returns a Mux without commands.
func NewMux() *Mux { return &Mux{handlers: map[string]Handler{}} }

// Handle sets the handler of a command. It panics if there is one already.
func (m *Mux) Handle(cmd string, handler Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handlers[cmd] != nil {
		panic(fmt.Sprintf("pipeplug: the command %q has two handlers", cmd))
	}
	m.handlers[cmd] = handler
}

// HandleFunc sets the handler of a command.
func (m *Mux) HandleFunc(cmd string, handler func(ctx context.Context, req *Request) ([]byte, error)) {
	m.Handle(cmd, HandlerFunc(handler))
}

// Commands lists the commands that have a handler, in order.
func (m *Mux) Commands() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	commands := make([]string, 0, len(m.handlers))
	for cmd := range m.handlers {
		commands = append(commands, cmd)
	}
	sort.Strings(commands)
	return commands
}

func (m *Mux) handler(cmd string) Handler {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.handlers[cmd]
}

// Serve has the handler of the command answer.
func (m *Mux) Serve(ctx context.Context, req *Request) ([]byte, error) {
	if handler := m.handler(req.Command); handler != nil {
		return handler.Serve(ctx, req)
	}
	return nil, unknownCommand(req.Command, m.Commands())
}

func unknownCommand(cmd string, known []string) error {
	err := Errorf(CodeUnknownCommand, "unknown command %q", cmd)
	if known == nil {
		return err
	}
	return err.WithData(map[string][]string{"commands": known})
}

// A Request is what a handler is asked, or told: a one-way.
type Request struct {
	Command string
	Data    []byte // the handler may keep and change it

	conn      *Conn
	id        uint64
	cmd       *command
	oneWay    bool
	inline    uint32 // its number if it runs on the goroutine that reads
	listed    bool   // in the table of requests
	turn      *bool  // of its sequence of commands
	cancelled atomic.Bool
	ctx       requestContext
	parts     *PartReader
	replies   *PartWriter
	progress  *progressSender
}

// Conn is the connection that the request came over, to call the other side.
func (r *Request) Conn() *Conn { return r.conn }

// IsOneWay tells whether it has no reply.
func (r *Request) IsOneWay() bool { return r.oneWay }

// requestContext is the context of a handler, without allocations until it is waited for.
type requestContext struct {
	req      *Request
	deadline time.Time
	values   map[string]string

	mu    sync.Mutex
	done  chan struct{}
	err   error
	timer *time.Timer
}

func (x *requestContext) Deadline() (time.Time, bool) { return x.deadline, !x.deadline.IsZero() }

func (x *requestContext) Done() <-chan struct{} {
	x.mu.Lock()
	first := x.done == nil
	if first {
		x.done = make(chan struct{})
		if x.err != nil {
			close(x.done)
		}
	}
	done := x.done
	x.mu.Unlock()
	if first && !x.req.listed {
		x.req.conn.tellAtEnd(x)
	}
	return done
}

// tellAtEnd has the end of the connection cancel the context of a request that no table has.
func (c *Conn) tellAtEnd(x *requestContext) {
	c.mu.Lock()
	over := c.err != nil
	x.mu.Lock()
	if !over && x.err == nil { // its handler runs still
		c.unlisted[x] = struct{}{}
	}
	x.mu.Unlock()
	c.mu.Unlock()
	if over {
		x.cancel(context.Canceled)
	}
}

func (x *requestContext) Err() error {
	if x.req.conn.isOver() {
		x.cancel(context.Canceled)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *requestContext) Value(key any) any {
	if _, ok := key.(valuesKey); ok {
		if x.values == nil {
			return nil
		}
		return x.values
	}
	return x.req.conn.base.Value(key)
}

func (x *requestContext) cancel(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return
	}
	x.err = err
	if x.timer != nil {
		x.timer.Stop()
	}
	if x.done != nil {
		close(x.done)
	}
}

// origin is the goroutine that admits a request.
type origin int

const (
	fromReader origin = iota // the one that reads
	fromLeader               // a caller that reads, whose goroutine runs no handlers
	fromStart                // another one, which has no reading role
)

// admit runs the handler of a request, or lets it wait. It is false if another goroutine has the
// reading role now.
func (c *Conn) admit(req *Request, from origin) bool {
	streams := req.parts != nil || req.replies != nil
	tracked := !req.oneWay || streams
	c.mu.Lock()
	if c.err != nil && !c.isAnswered {
		c.mu.Unlock()
		return true
	}
	if streams && c.inStreams >= c.options.MaxStreams {
		c.tookLocked(weight(req.Command, len(req.Data)))
		c.mu.Unlock()
		err := Errorf(CodeOverloaded, "%d streams are open, which is the limit", c.options.MaxStreams)
		if req.oneWay {
			c.w.put(Format(c.format.Load()), req.id, response, cmdEnough, []byte(err.Message), false)
		} else {
			c.refuse(req.id, request, err, req.Command)
		}
		return true
	}
	if tracked && c.features.Load()&(featureCancel|featureStream|featureContext) != 0 {
		c.requests[req.id] = req
		req.listed = true
	}
	if streams {
		c.inStreams++
	}
	busy := c.sequences[req.Command]
	if c.running >= c.options.MaxHandlers || (busy != nil && *busy) {
		c.waiting = append(c.waiting, req)
		c.waitingSize += weight(req.Command, len(req.Data))
		c.mu.Unlock()
		return true
	}
	if busy != nil {
		*busy, req.turn = true, busy
	}
	c.running++
	c.tookLocked(weight(req.Command, len(req.Data)))
	c.mu.Unlock()
	if from == fromReader && !streams && req.cmd.score.Load() > 0 {
		return c.runInline(req)
	}
	if from != fromStart {
		c.spawned = true
	}
	go c.serve(req)
	return true
}

// dropWaiting answers a cancelled request whose handler does not run yet.
func (c *Conn) dropWaiting(req *Request) {
	c.mu.Lock()
	for i, waits := range c.waiting {
		if waits == req {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			w := weight(req.Command, len(req.Data))
			c.waitingSize -= w
			c.tookLocked(w)
			c.running++ // as if it ran
			c.mu.Unlock()
			c.finish(req, nil, Errorf(CodeCancelled, "%s: given up before its handler began", req.Command))
			return
		}
	}
	c.mu.Unlock()
}

// serve runs the handler of a request and sends its answer.
func (c *Conn) serve(req *Request) {
	inline := req.inline != 0
	began := time.Now()
	if !req.ctx.deadline.IsZero() {
		left := time.Until(req.ctx.deadline)
		if left <= 0 {
			c.finish(req, nil, Errorf(CodeDeadline, "%s: its deadline had passed before its handler began", req.Command))
			return
		}
		req.ctx.mu.Lock()
		if req.ctx.err == nil {
			req.ctx.timer = time.AfterFunc(left, func() { req.ctx.cancel(context.DeadlineExceeded) })
		}
		req.ctx.mu.Unlock()
	}
	returned := false
	var reply []byte
	var err error
	defer func() {
		if returned {
			return
		}
		if cause := recover(); cause != nil {
			c.logf("panic in the handler of %q: %v\n%s", req.Command, cause, debug.Stack())
			c.finish(req, nil, Errorf(CodePanicked, "%s: the handler panicked: %v", req.Command, cause))
			return
		}
		// runtime.Goexit, which ends this goroutine.
		c.finish(req, nil, Errorf(CodeUnanswered, "%s: the handler ended without an answer", req.Command))
		if inline {
			c.unblock()
			c.w.flush()
		}
	}()
	reply, err = c.handler.Serve(&req.ctx, req)
	returned = true
	req.cmd.took(time.Since(began))
	if !req.oneWay {
		// The caller may not read: replies wait with their handlers, whose number has a limit.
		_ = c.w.waitRoom(context.Background(), c.unblock)
	}
	c.finish(req, reply, err)
}

// finish sends the answer of a request, and starts the next one that waits.
func (c *Conn) finish(req *Request, reply []byte, err error) {
	req.ctx.cancel(context.Canceled)
	streams := req.parts != nil || req.replies != nil
	if streams {
		req.finishStream(err)
	}
	if req.progress != nil {
		req.progress.finish()
	}
	switch {
	case req.oneWay:
		if err != nil {
			c.logf("%s: the one-way %.100q failed: %v", c.peer, req.Command, err)
		}
	case err != nil:
		c.refuse(req.id, request, err, req.Command)
	default:
		cmd := req.Command
		c.respond(req.id, cmd, reply)
	}
	c.mu.Lock()
	if req.listed && c.requests[req.id] == req {
		delete(c.requests, req.id)
	}
	delete(c.unlisted, &req.ctx)
	if streams {
		c.inStreams--
	}
	c.running--
	many := c.running > 0
	if req.turn != nil {
		*req.turn = false
	}
	next := c.nextWaiting()
	if c.running == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	c.mu.Unlock()
	if next != nil {
		select {
		case c.resume <- struct{}{}:
		default:
		}
		go c.serve(next)
	}
	if req.inline != 0 && c.inline.Load() == req.inline {
		return // the goroutine that reads writes when it has nothing left to handle
	}
	switch {
	case len(reply) > copyLimit:
		c.w.flushAs(brief)
	case many:
		c.w.flushSoon()
	default:
		c.w.flush()
	}
}

// nextWaiting takes the first request out of those that wait whose turn it is.
func (c *Conn) nextWaiting() *Request {
	if c.running >= c.options.MaxHandlers {
		return nil
	}
	for i, req := range c.waiting {
		if busy := c.sequences[req.Command]; busy != nil {
			if *busy {
				continue
			}
			*busy, req.turn = true, busy
		}
		if i == 0 {
			c.waiting[0] = nil
			c.waiting = c.waiting[1:]
		} else {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
		}
		w := weight(req.Command, len(req.Data))
		c.waitingSize -= w
		c.running++
		c.tookLocked(w)
		return req
	}
	return nil
}

// waitIdle waits until no handler runs; false at the time limit.
func (c *Conn) waitIdle(timeout <-chan time.Time) bool {
	for {
		c.mu.Lock()
		if c.running == 0 && len(c.waiting) == 0 {
			c.mu.Unlock()
			return true
		}
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		c.mu.Unlock()
		select {
		case <-idle:
		case <-timeout:
			return false
		}
	}
}

// Progress tells a caller who wants to know how far the work is. It may be called as often as one
// likes: the first report is sent at once, then the latest every 50 ms, and the last one before the
// reply. total may be 0 if it is not known.
func (r *Request) Progress(done, total uint64, message string) {
	if r.progress != nil {
		r.progress.report(done, total, message)
	}
}

// errNoStream is for a handler whose caller has not opened a stream.
var errNoStream = errors.New("the caller takes no parts: this command needs a stream")

// Parts returns the parts that follow the request. It is empty if none do.
func (r *Request) Parts() *PartReader {
	if r.parts == nil {
		return &PartReader{conn: r.conn, ctx: &r.ctx, ended: true, used: true}
	}
	r.parts.mu.Lock()
	r.parts.used = true
	r.parts.mu.Unlock()
	return r.parts
}

// ReplyParts sends parts before the reply. It is an error if the caller takes none.
func (r *Request) ReplyParts() (*PartWriter, error) {
	if r.replies == nil {
		return nil, errNoStream
	}
	return r.replies, nil
}
