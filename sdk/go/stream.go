package pipeplug

import (
	"context"
	"fmt"
)

// Stream is a call with parts. In and Out may be used by two goroutines at once, which is needed
// if both sides send more than a window.
type Stream struct {
	In  *PartReader // parts of the reply
	Out *PartWriter // parts of the request; nil with ReceiveOnly

	call *Pending
}

// ReceiveOnly has Stream open a stream without parts of the request.
func ReceiveOnly() CallOption {
	return func(o *callOptions) { o.receiveOnly = true }
}

// Stream sends a request that parts follow, and whose reply parts may precede. ctx is for all of it.
// Call Reply at the end, or end ctx.
func (c *Conn) Stream(ctx context.Context, cmd string, data []byte, options ...CallOption) (*Stream, error) {
	if err := c.needStreams(cmd); err != nil {
		return nil, err
	}
	p := &Pending{done: make(chan struct{}), shared: true}
	s := &Stream{In: newPartReader(c, 0, response, ctx), Out: newPartWriter(c, 0, oneWay, ctx), call: p}
	o := callOptions{words: "send receive", stream: s}
	for _, option := range options {
		option(&o)
	}
	if o.receiveOnly {
		o.words, s.Out = "receive", nil
	}
	if err := c.begin(ctx, p, cmd, data, &o); err != nil {
		return nil, err
	}
	c.w.flushLater()
	c.needReader()
	p.watch()
	return s, nil
}

func (c *Conn) needStreams(cmd string) error {
	if c.features.Load()&featureStream == 0 {
		return &wrapped{ErrUnsupported, fmt.Sprintf("%s: %s does not support streams", cmd, c.peer)}
	}
	return nil
}

// NotifyStream sends a one-way that parts follow. Close the PartWriter at the end; the end of ctx
// aborts it.
func (c *Conn) NotifyStream(ctx context.Context, cmd string, data []byte) (*PartWriter, error) {
	if err := c.checkCall(ctx, cmd, len(data)); err != nil {
		return nil, err
	}
	if err := c.needStreams(cmd); err != nil {
		return nil, err
	}
	w := newPartWriter(c, 0, oneWay, ctx)
	w.over = make(chan struct{})
	o := callOptions{words: "send"}
	head, err := c.contextFor(ctx, &o)
	if err != nil {
		return nil, err
	}
	if err := c.reserve(ctx, weight(cmd, len(data)), func() {
		c.lastID++
		w.id = c.lastID
		c.outStreams[w.id] = w
	}); err != nil {
		return nil, fmt.Errorf("%s: not sent: %w", cmd, err)
	}
	c.send(w.id, oneWay, cmd, data, head)
	c.w.flushLater()
	c.needReader()
	if ctx.Done() != nil {
		go func() {
			select {
			case <-w.over:
			case <-ctx.Done():
				w.giveUp()
			}
		}()
	}
	return w, nil
}

// opened sets the number of a stream, before anything of it can arrive.
func (s *Stream) opened(id uint64) {
	s.In.id = id
	if s.Out != nil {
		s.Out.id = id
	}
}

// finish ends both directions: the call is complete.
func (s *Stream) finish(err error) {
	s.In.end(err)
	if s.Out != nil {
		if err == nil {
			err = &wrapped{ErrEnough, "the handler has answered"}
		}
		s.Out.fail(err)
	}
}

// Reply waits for the reply, which follows the parts. Parts that are not taken by then stay.
func (s *Stream) Reply() ([]byte, error) { return s.call.Wait() }

// Cancel gives the call up, in both directions.
func (s *Stream) Cancel() { s.call.Cancel() }
