package pipeplug

import (
	"context"
	"sync"
	"time"
)

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
