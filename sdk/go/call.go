package pipeplug

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A CallOption changes one call.
type CallOption func(*callOptions)

type callOptions struct {
	progress func(Progress)
	words    string // of the stream
	stream   *Stream

	isCall      bool // its deadline goes with it
	receiveOnly bool
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

// checkCall tells why a command of the user's, with a buffer of this size, cannot be sent.
func (c *Conn) checkCall(ctx context.Context, cmd string, size int) error {
	err := checkContext(ctx)
	if err == nil {
		err = c.tooLarge(size)
	}
	if err != nil {
		return fmt.Errorf("%s: not sent: %w", cmd, err)
	}
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
	if err := c.checkCall(ctx, cmd, len(data)); err != nil {
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
		if err := whyOver(ctx); err != nil {
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
		p.answer(nil, &Error{Message: string(ch.buffer)})
	case cmdFailure:
		p.answer(nil, parseFailure(ch.buffer))
	default:
		p.answer(ch.buffer, nil)
	}
}

// Notify sends a one-way, which has no reply. It waits for room and for credit, not for the handler.
func (c *Conn) Notify(ctx context.Context, cmd string, data []byte) error {
	if err := c.checkCall(ctx, cmd, len(data)); err != nil {
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
	err := checkContext(ctx)
	if err == nil {
		err = whyOver(ctx)
	}
	if err != nil {
		return fmt.Errorf("the ping was not sent: %w", err)
	}
	p := &Pending{done: make(chan struct{}), shared: true, conn: c, cmd: cmdPing, ctx: ctx}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return fmt.Errorf("the ping was not sent: %w", err)
	}
	c.lastID++
	p.id = c.lastID
	c.calls[p.id] = p
	c.openCalls.Add(1)
	c.mu.Unlock()
	c.send(p.id, request, cmdPing, nil, nil)
	c.w.flush()
	_, err = p.Wait()
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
