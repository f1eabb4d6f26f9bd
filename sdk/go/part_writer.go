package pipeplug

import (
	"context"
	"errors"
	"sync"
)

// maxPart is the size of the parts that PartWriter.Write makes.
const maxPart = 128 << 10

// PartWriter sends the parts of one direction of a stream. It is an io.Writer, too: each write is at
// least one part. Use it from one goroutine at a time.
type PartWriter struct {
	conn      *Conn
	id        uint64
	direction byte // of the chunks of the parts
	ctx       context.Context

	mu       sync.Mutex
	sent     uint64
	credited uint64
	err      error
	closed   bool
	wake     chan struct{}
	over     chan struct{} // of a one-way: closed when the stream is out of the table
}

func newPartWriter(c *Conn, id uint64, direction byte, ctx context.Context) *PartWriter {
	return &PartWriter{conn: c, id: id, direction: direction, ctx: ctx, wake: make(chan struct{}, 1)}
}

func (w *PartWriter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// fail ends the sending: nothing more is wanted, or possible.
func (w *PartWriter) fail(err error) {
	w.mu.Lock()
	first := w.err == nil
	if first {
		w.err = err
		w.signal()
	}
	w.mu.Unlock()
	if first {
		w.leave()
	}
}

// leave takes a stream behind a one-way out of the table.
func (w *PartWriter) leave() {
	if w.over == nil {
		return
	}
	c := w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-w.over:
	default:
		close(w.over)
		delete(c.outStreams, w.id)
	}
}

// giveUp ends the sending at the end of the context. Nothing else tells the receiver of a one-way.
func (w *PartWriter) giveUp() {
	err := w.ctx.Err()
	if w.over != nil {
		_ = w.finish("the sender has given the stream up: " + err.Error())
	}
	w.fail(err)
}

func (w *PartWriter) credit(n uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok || n > w.sent || n < w.credited {
		w.conn.logf("%s: a credit of a stream is ignored", w.conn.peer)
		return
	}
	w.credited = n
	w.signal()
}

// Send sends one part. It waits while the receiver has not taken enough of those before. The error
// is ErrEnough if the receiver wants no more.
func (w *PartWriter) Send(part []byte) error {
	for {
		err := w.conn.w.waitRoom(w.ctx, w.conn.unblock)
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			w.giveUp()
			return err
		}
		w.mu.Lock()
		if w.err != nil || w.closed {
			err := w.err
			w.mu.Unlock()
			if err == nil {
				err = errors.New("a part after the end of the stream")
			}
			return err
		}
		window := w.conn.windowOfStreams()
		if w.sent-w.credited < window {
			w.sent += partWeight(len(part))
			c := w.conn
			w.mu.Unlock()
			c.w.send(Format(c.format.Load()), w.id, w.direction, cmdPart, part, nil)
			c.w.flushLater()
			return nil
		}
		w.mu.Unlock()
		w.conn.w.flush()
		w.conn.unblock()
		select {
		case <-w.wake:
		case <-w.ctx.Done():
		}
	}
}

// Write sends p as parts of at most 128 KiB.
func (w *PartWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:]
		if len(part) > maxPart {
			part = part[:maxPart]
		}
		if err := w.Send(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Close says that the parts of a request or one-way are complete. The parts of a reply are complete
// when the handler returns without an error.
func (w *PartWriter) Close() error { return w.finish("") }

// Abort ends the parts early, with a reason for the receiver, whose Recv is ErrAborted.
func (w *PartWriter) Abort(reason string) error {
	if reason == "" {
		reason = "aborted"
	}
	return w.finish(reason)
}

func (w *PartWriter) finish(reason string) error {
	err := w.finishLocked(reason)
	w.leave()
	return err
}

func (w *PartWriter) finishLocked(reason string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.err != nil {
		if errors.Is(w.err, ErrEnough) {
			return nil
		}
		return w.err
	}
	w.closed = true
	if w.direction == response {
		return nil
	}
	c := w.conn
	c.w.put(Format(c.format.Load()), w.id, oneWay, cmdEnd, []byte(reason), true)
	c.w.flush()
	return nil
}
