package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"unicode/utf8"
)

// maxPart is the size of the parts that PartWriter.Write makes.
const maxPart = 128 << 10

// partWeight is the weight of a part in the window of its stream.
func partWeight(size int) uint64 { return weight(cmdPart, size) }

// PartReader takes the parts of one direction of a stream. It is an io.Reader of their bytes, too.
// Use it from one goroutine at a time.
type PartReader struct {
	conn      *Conn
	id        uint64
	direction byte // of the chunks that bring its parts
	ctx       context.Context

	mu       sync.Mutex
	queue    [][]byte
	received uint64
	taken    uint64
	credited uint64
	ended    bool
	err      error
	used     bool
	enough   bool
	wake     chan struct{}
	rest     []byte
}

func newPartReader(c *Conn, id uint64, direction byte, ctx context.Context) *PartReader {
	return &PartReader{conn: c, id: id, direction: direction, ctx: ctx, wake: make(chan struct{}, 1)}
}

func (r *PartReader) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// answer is the direction of what is said of the parts.
func (r *PartReader) answer() byte {
	if r.direction == oneWay {
		return response
	}
	return oneWay
}

// push takes a part that has arrived. It is false if the sender does not keep to the window.
func (r *PartReader) push(part []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.enough {
		return true
	}
	if r.received-r.credited >= uint64(r.conn.options.StreamWindow) {
		r.ended, r.err = true, errors.New("the sender of the parts does not keep to the window")
		r.signal()
		return false
	}
	r.received += partWeight(len(part))
	r.queue = append(r.queue, part)
	if len(r.queue) == 1 {
		r.signal()
	}
	return true
}

// end is the end of the parts: nil if they are complete.
func (r *PartReader) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.ended, r.err = true, err
		r.signal()
	}
}

// Recv returns the next part. It is io.EOF after the last one, and an error if the parts are not
// complete.
func (r *PartReader) Recv() ([]byte, error) {
	if rest := r.rest; len(rest) > 0 {
		r.rest = nil
		return rest, nil
	}
	for {
		r.mu.Lock()
		if len(r.queue) > 0 {
			part := r.queue[0]
			r.queue[0] = nil
			if r.queue = r.queue[1:]; len(r.queue) == 0 {
				r.queue = nil
			}
			r.taken += partWeight(len(part))
			credit := !r.ended && !r.enough && r.taken-r.credited >= (uint64(r.conn.options.StreamWindow)+1)/2
			if credit {
				r.credited = r.taken
			}
			taken := r.taken
			r.mu.Unlock()
			if credit {
				c := r.conn
				var number [20]byte
				c.w.put(Format(c.format.Load()), r.id, r.answer(), cmdPartCredit, strconv.AppendUint(number[:0], taken, 10), false)
				c.w.flush()
			}
			return part, nil
		}
		if r.ended || r.enough {
			err := r.err
			r.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
		r.mu.Unlock()
		r.conn.w.flush()
		r.conn.unblock()
		select {
		case <-r.wake:
		case <-r.ctx.Done():
			r.end(r.ctx.Err())
		}
	}
}

// Read reads the bytes of the parts, one after the other.
func (r *PartReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		part, err := r.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = part
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Enough tells the sender that no more parts are wanted, and why. Recv is io.EOF from now on.
func (r *PartReader) Enough(reason string) {
	r.mu.Lock()
	told := r.ended || r.enough
	r.enough, r.queue = true, nil
	r.mu.Unlock()
	if !told {
		c := r.conn
		c.w.put(Format(c.format.Load()), r.id, r.answer(), cmdEnough, []byte(reason), true)
		c.w.flush()
	}
}

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
	if err := c.checkCommand(cmd); err != nil {
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

// windowOfStreams is how much of a stream the peer takes before it gives credit.
func (c *Conn) windowOfStreams() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streamWindow == 0 {
		return 1
	}
	return c.streamWindow
}

// streamChunk handles a chunk of a stream, or a report of progress. It is false for other chunks.
func (c *Conn) streamChunk(ch chunk) bool {
	name := ch.cmd.name
	switch name {
	case cmdPart, cmdEnough, cmdPartCredit:
	case cmdEnd:
		if ch.direction == response {
			return false
		}
	case cmdProgress:
		if ch.direction == response {
			c.progressed(ch)
		}
		return true
	default:
		return false
	}
	in, out := c.streamOf(ch.id, ch.direction == response)
	c.spawned = true
	switch name {
	case cmdPart:
		if in != nil && !in.push(ch.buffer) {
			c.w.put(Format(c.format.Load()), in.id, in.answer(), cmdEnough, []byte("more parts than the window allows"), true)
		}
	case cmdEnd:
		if in == nil {
			break
		}
		if len(ch.buffer) == 0 {
			in.end(nil)
			break
		}
		in.end(&wrapped{ErrAborted, "the sender has ended the stream early: " + validText(ch.buffer)})
	case cmdEnough:
		if out != nil {
			reason := "the receiver wants no more parts"
			if len(ch.buffer) > 0 {
				reason += ": " + validText(ch.buffer)
			}
			out.fail(&wrapped{ErrEnough, reason})
		}
	case cmdPartCredit:
		if out != nil {
			n, ok := parseNumber(string(ch.buffer))
			out.credit(n, ok)
		}
	}
	return true
}

// streamOf finds the halves of a stream of this side's, or of the peer's.
func (c *Conn) streamOf(id uint64, own bool) (in *PartReader, out *PartWriter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !own {
		if req := c.requests[id]; req != nil {
			return req.parts, req.replies
		}
		return nil, nil
	}
	if p := c.calls[id]; p != nil && p.stream != nil {
		return p.stream.In, p.stream.Out
	}
	return nil, c.outStreams[id]
}

// partTooLarge ends a stream one of whose parts was discarded.
func (c *Conn) partTooLarge(id uint64, own bool, err error) {
	if in, _ := c.streamOf(id, own); in != nil {
		in.end(err)
		c.w.put(Format(c.format.Load()), in.id, in.answer(), cmdEnough, []byte(err.Error()), true)
	}
}

func validText(text []byte) string {
	if utf8.Valid(text) {
		return string(text)
	}
	return fmt.Sprintf("%q", text)
}

// endStream ends the stream of a request that was given up.
func (r *Request) endStream(err error) {
	if r.parts != nil {
		r.parts.end(err)
	}
	if r.replies != nil {
		r.replies.fail(err)
	}
}

// finishStream ends the stream of a request whose handler has returned.
func (r *Request) finishStream(err error) {
	if r.replies != nil {
		r.replies.fail(errors.New("the handler has returned"))
	}
	if r.parts == nil || r.cancelled.Load() {
		return
	}
	p := r.parts
	p.mu.Lock()
	unused, open := !p.used, !p.ended && !p.enough
	p.enough, p.queue = true, nil
	p.mu.Unlock()
	reason := ""
	switch {
	case unused && err == nil:
		reason = "the handler takes no parts"
	case unused || !open:
		if !open {
			return
		}
	}
	c := r.conn
	c.w.put(Format(c.format.Load()), r.id, response, cmdEnough, []byte(reason), true)
}
