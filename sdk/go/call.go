package pipeplug

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Pending is a call that was sent and may not have its reply yet.
type Pending struct {
	conn     *Conn
	id       uint64
	cmd      string
	done     chan struct{}
	shared   bool // done is closed, for all that wait; otherwise one value is sent
	complete atomic.Bool
	reply    []byte
	err      error
	progress func(Progress)
	stream   *Stream
	ctx      context.Context
	reports  *reports
	watched  atomic.Bool // a goroutine gives it up at the end of its context
}

var pendings = sync.Pool{New: func() any { return &Pending{done: make(chan struct{}, 1)} }}

// A CallOption changes one call.
type CallOption func(*callOptions)

type callOptions struct {
	progress func(Progress)
	words    string // of the stream
	stream   *Stream

	isCall      bool // its deadline goes with it
	receiveOnly bool
}

// OnProgress has report called with the progress that the handler reports, one at a time. Reports
// come in quick succession only if the handler is done.
func OnProgress(report func(Progress)) CallOption {
	return func(o *callOptions) { o.progress = report }
}

// Progress is how far the work on a call is.
type Progress struct {
	Done    uint64  // in any unit
	Total   *uint64 // all there is, in the same unit; nil if that is not known
	Message string  // for people
}

type valuesKey struct{}

// WithValue returns a context whose calls carry a string for their handlers, such as "traceparent".
// Calls that the handlers make in turn, with their context, carry it as well.
func WithValue(ctx context.Context, key, value string) context.Context {
	values := map[string]string{key: value}
	for k, v := range Values(ctx) {
		if k != key {
			values[k] = v
		}
	}
	return context.WithValue(ctx, valuesKey{}, values)
}

// Values returns what the caller of a handler, or WithValue, has put into a context. It must not
// be changed.
func Values(ctx context.Context) map[string]string {
	values, _ := ctx.Value(valuesKey{}).(map[string]string)
	return values
}

// Call sends a request and waits for its reply. The reply is the caller's; data may be changed after
// Call has returned.
//
// The deadline of ctx goes to the other side, and its end cancels the handler there. An error is an
// *Error if the other side has answered with one, ctx.Err() or ErrClosed; use errors.As and errors.Is.
func (c *Conn) Call(ctx context.Context, cmd string, data []byte, options ...CallOption) ([]byte, error) {
	p := pendings.Get().(*Pending)
	var o callOptions
	for _, option := range options {
		option(&o)
	}
	if err := c.begin(ctx, p, cmd, data, &o); err != nil {
		return nil, err
	}
	if c.openCalls.Load() == 1 {
		c.w.flush()
	} else {
		c.w.flushSoon()
	}
	if c.lead(p) {
		<-p.done
		return p.recycle()
	}
	c.unblock()
	select {
	case <-p.done:
	case <-ctx.Done():
		if c.cancel(p) {
			return nil, givenUp(cmd, ctx.Err())
		}
		<-p.done // the reply has come at this moment
	}
	return p.recycle()
}

func givenUp(cmd string, err error) error { return fmt.Errorf("%s: given up: %w", cmd, err) }

// whyOver is the error of a context, also if its deadline has passed just now.
func whyOver(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// result is the reply or error of a complete call. At a deadline both sides may be the first: the
// caller gets the same error.
func (p *Pending) result() ([]byte, error) {
	p.reports.wait()
	if _, ok := p.err.(*Error); ok {
		if over := whyOver(p.ctx); over != nil {
			return nil, givenUp(p.cmd, over)
		}
	}
	return p.reply, p.err
}

func (p *Pending) recycle() ([]byte, error) {
	reply, err := p.result()
	*p = Pending{done: p.done}
	pendings.Put(p)
	return reply, err
}

// Go sends a request and returns at once. Data is copied if it is not sent at once. Wait or Done wait
// for the reply; either gives the call up when ctx ends.
func (c *Conn) Go(ctx context.Context, cmd string, data []byte, options ...CallOption) (*Pending, error) {
	p := &Pending{done: make(chan struct{}), shared: true}
	var o callOptions
	for _, option := range options {
		option(&o)
	}
	if err := c.begin(ctx, p, cmd, data, &o); err != nil {
		return nil, err
	}
	c.w.flushLater()
	c.needReader()
	return p, nil
}

// Done returns a channel that is closed when the call has its reply, or has failed. The end of the
// call's context gives it up, also if no goroutine is in Wait.
func (p *Pending) Done() <-chan struct{} {
	p.watch()
	return p.done
}

// watch gives the call up at the end of its context.
func (p *Pending) watch() {
	if p.ctx.Done() == nil || p.complete.Load() || p.watched.Swap(true) {
		return
	}
	go func() {
		select {
		case <-p.done:
		case <-p.ctx.Done():
			p.Cancel()
		}
	}()
}

// Wait waits for the reply, and gives the call up if its context ends before.
func (p *Pending) Wait() ([]byte, error) {
	if !p.complete.Load() {
		p.conn.w.flush()
		if !p.conn.lead(p) {
			p.conn.unblock()
			select {
			case <-p.done:
			case <-p.ctx.Done():
				p.Cancel()
			}
		}
	}
	<-p.done
	return p.result()
}

// Cancel gives the call up: it fails with context.Canceled, or the error of its context.
func (p *Pending) Cancel() {
	if p.conn.cancel(p) {
		err := p.ctx.Err()
		if err == nil {
			err = context.Canceled
		}
		p.finish(nil, fmt.Errorf("%s: given up: %w", p.cmd, err))
	}
}

// finish completes a call that is no longer in the table.
func (p *Pending) finish(reply []byte, err error) {
	p.reply, p.err = reply, err
	if p.stream != nil {
		p.stream.finish(err)
	}
	if p.shared {
		p.complete.Store(true)
		close(p.done)
		return
	}
	p.complete.Store(true)
	p.done <- struct{}{}
}

// checkCommand tells why a command of the user's cannot be sent.
func (c *Conn) checkCommand(cmd string) error {
	switch {
	case isReserved(cmd), cmd == cmdMetadata:
		return &wrapped{ErrReserved, fmt.Sprintf("the command %q belongs to the protocol, use the methods of the connection", cmd)}
	case len(cmd) > DefaultCommandLimit:
		return &wrapped{ErrCommand, fmt.Sprintf("a command of %d bytes is over the limit of %d", len(cmd), DefaultCommandLimit)}
	case Format(c.format.Load()) == FormatClassic && strings.ContainsAny(cmd, " \x00"):
		return &wrapped{ErrCommand, fmt.Sprintf("the command %q has a space or NUL, which the classic format cannot send", cmd)}
	case !utf8.ValidString(cmd):
		return &wrapped{ErrCommand, fmt.Sprintf("the command %q is not UTF-8", cmd)}
	}
	return nil
}

// begin queues a request. It waits for room and for credit.
func (c *Conn) begin(ctx context.Context, p *Pending, cmd string, data []byte, o *callOptions) error {
	if err := c.checkCommand(cmd); err != nil {
		return err
	}
	p.progress, p.stream = o.progress, o.stream
	if p.progress != nil {
		p.reports = &reports{}
	}
	o.isCall = true
	return c.beginInternal(ctx, p, cmd, data, o)
}

func (c *Conn) beginInternal(ctx context.Context, p *Pending, cmd string, data []byte, o *callOptions) error {
	p.conn, p.cmd, p.ctx = c, cmd, ctx
	head, err := c.contextFor(ctx, o)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	if err := c.reserve(ctx, weight(cmd, len(data)), func() { // under the lock
		c.lastID++
		p.id = c.lastID
		c.calls[p.id] = p
		c.openCalls.Add(1)
		if p.stream != nil {
			p.stream.opened(p.id)
		}
	}); err != nil {
		return fmt.Errorf("%s: not sent: %w", cmd, err)
	}
	c.send(p.id, request, cmd, data, head)
	return nil
}

// send queues a request or one-way behind its context.
func (c *Conn) send(id uint64, direction byte, cmd string, data, head []byte) {
	c.w.send(Format(c.format.Load()), id, direction, cmd, data, head)
}

// reserve waits for room and credit, and calls take under the lock of the connection.
func (c *Conn) reserve(ctx context.Context, weight uint64, take func()) error {
	if err := c.w.waitRoom(ctx, c.unblock); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.mu.Lock()
		if c.err != nil {
			err := c.err
			c.mu.Unlock()
			return err
		}
		if !c.flows || c.sent-c.credited < c.peerWindow {
			c.sent += weight
			take()
			c.mu.Unlock()
			return nil
		}
		if c.credit == nil {
			c.credit = make(chan struct{})
		}
		credit := c.credit
		c.mu.Unlock()
		c.w.flush()
		c.unblock()
		select {
		case <-credit:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.over:
		}
	}
}

// cancel takes a call out of the table and tells the other side. It is false if the call is complete.
func (c *Conn) cancel(p *Pending) bool {
	c.mu.Lock()
	if c.calls[p.id] != p {
		c.mu.Unlock()
		return false
	}
	delete(c.calls, p.id)
	c.openCalls.Add(-1)
	tell := c.features.Load()&featureCancel != 0
	c.mu.Unlock()
	if tell {
		c.w.put(Format(c.format.Load()), p.id, oneWay, cmdCancel, nil, false)
		c.w.flush()
	}
	if p.stream != nil {
		p.stream.finish(context.Canceled)
	}
	return true
}

// answered completes the call that a response belongs to. One without a call is ignored.
func (c *Conn) answered(ch chunk) {
	c.mu.Lock()
	p := c.calls[ch.id]
	if p == nil {
		c.mu.Unlock()
		return
	}
	delete(c.calls, ch.id)
	c.openCalls.Add(-1)
	c.mu.Unlock()
	c.replied = true
	switch ch.cmd.name {
	case cmdError:
		p.finish(nil, &Error{Message: string(ch.buffer)})
	case cmdFailure:
		p.finish(nil, parseFailure(ch.buffer))
	default:
		p.finish(ch.buffer, nil)
	}
}

// Notify sends a one-way, which has no reply. It waits for room and for credit, not for the handler.
func (c *Conn) Notify(ctx context.Context, cmd string, data []byte) error {
	if err := c.checkCommand(cmd); err != nil {
		return err
	}
	var o callOptions
	var id uint64
	head, err := c.contextFor(ctx, &o)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	if err := c.reserve(ctx, weight(cmd, len(data)), func() {
		if head != nil {
			c.lastID++
			id = c.lastID
		}
	}); err != nil {
		return fmt.Errorf("%s: not sent: %w", cmd, err)
	}
	c.send(id, oneWay, cmd, data, head)
	c.w.flushLater()
	return nil
}

// Ping asks the other side whether it still reads.
func (c *Conn) Ping(ctx context.Context) error {
	p := &Pending{done: make(chan struct{}), shared: true, conn: c, cmd: cmdPing, ctx: ctx}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.lastID++
	p.id = c.lastID
	c.calls[p.id] = p
	c.openCalls.Add(1)
	c.mu.Unlock()
	c.send(p.id, request, cmdPing, nil, nil)
	c.w.flush()
	_, err := p.Wait()
	return err
}

// millisLeft is the time to a deadline, rounded up.
func millisLeft(deadline time.Time) uint64 {
	left := time.Until(deadline)
	if left <= 0 {
		return 0
	}
	return uint64((left + time.Millisecond - 1) / time.Millisecond)
}
