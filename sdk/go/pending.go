package pipeplug

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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

// result is the reply or error of a complete call.
func (p *Pending) result() ([]byte, error) {
	p.reports.wait()
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

// answer completes a call with the response that has arrived. One that comes after the end of the
// call's context is dropped: the call fails the same way whichever of both is looked at first.
func (p *Pending) answer(reply []byte, err error) {
	if over := whyOver(p.ctx); over != nil {
		reply, err = nil, givenUp(p.cmd, over)
	}
	p.finish(reply, err)
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
