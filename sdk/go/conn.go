package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Features of the protocol, negotiated at the start.
const (
	featureFlow uint32 = 1 << iota
	featureCancel
	featureContext
	featureProgress
	featureStream
	featureFailure
	featureConfig
	featureLog
)

var featureNames = []struct {
	name string
	bit  uint32
}{
	{"flow", featureFlow}, {"cancel", featureCancel}, {"context", featureContext}, {"progress", featureProgress},
	{"stream", featureStream}, {"failure", featureFailure}, {"config", featureConfig}, {"log", featureLog},
}

// Defaults of the options.
const (
	DefaultWindow       = 4 << 20
	DefaultStreamWindow = 1 << 20
	DefaultMaxHandlers  = 1024
	DefaultMaxStreams   = 1024
)

// Options are the limits of a connection. The zero value of each means its default.
type Options struct {
	CommandLimit int // bytes of a cmd that are received
	BufferLimit  int // bytes of a buffer that are received
	Window       int // bytes of requests and one-ways that the other side may send before they are taken
	StreamWindow int // the same for one direction of one stream
	MaxHandlers  int // handlers at a time; what comes beyond waits
	MaxStreams   int // streams that the other side has open
	// InOrder are sequences of commands. The commands of a sequence are handled one at a time, in the
	// order in which they were sent; a handler must not wait for a later command of its sequence.
	InOrder [][]string
}

func (o Options) withDefaults() Options {
	for _, f := range []struct {
		value    *int
		default_ int
	}{
		{&o.CommandLimit, DefaultCommandLimit}, {&o.BufferLimit, DefaultBufferLimit}, {&o.Window, DefaultWindow},
		{&o.StreamWindow, DefaultStreamWindow}, {&o.MaxHandlers, DefaultMaxHandlers}, {&o.MaxStreams, DefaultMaxStreams},
	} {
		if *f.value <= 0 {
			*f.value = f.default_
		}
	}
	return o
}

// Conn is a connection to the other side: calls, one-ways and streams in either direction. All its
// methods may be used by many goroutines at once.
type Conn struct {
	peer    string // for messages: "the host", or the plugin's name
	options Options
	handler Handler
	base    context.Context // of all handlers
	logf    func(format string, args ...any)

	// What the side adds to the conversation.
	metadata func(*Request)          // answers GetMetadata; nil on a host
	services []*Service              // what GetServices describes
	stopped  func()                  // cmd.stop
	logLevel func(level string)      // cmd.log_level; nil if the level cannot be set
	onEnd    func(cause error)       // the connection has ended
	explain  func(cause error) error // says more of the end; may take a moment
	hold     func(req *Request) bool // keeps what comes before the start is over

	format   atomic.Int32
	features atomic.Uint32 // what may be used towards the peer
	accepts  atomic.Uint32 // what the peer may use

	w      *writer
	wake   *wake
	over   chan struct{} // closed when the connection has ended
	ending atomic.Bool

	// The reading role and what belongs to it.
	reading      sync.Mutex
	in           reader
	spawned      bool
	replied      bool
	received     atomic.Bool // anything came
	next         *chunkContext
	led          atomic.Uint32
	readerNeeded chan struct{}
	parked       atomic.Bool   // the goroutine that reads has left that to callers
	inline       atomic.Uint32 // number of the handler that runs on the goroutine that reads, or 0
	inlineSeq    atomic.Uint32
	watching     atomic.Bool
	watched      uint32
	quiet        int
	watcher      *time.Timer
	resume       chan struct{}

	openCalls atomic.Int32

	mu           sync.Mutex
	err          error
	lastID       uint64
	calls        map[uint64]*Pending
	outStreams   map[uint64]*PartWriter       // behind one-ways
	requests     map[uint64]*Request          // of the peer, that have a number and run or wait
	unlisted     map[*requestContext]struct{} // of other handlers, that wait for their end
	isAnswered   bool                         // after the end: the peer only sends no more
	inStreams    int                          // that the peer has opened
	running      int
	waiting      []*Request
	sequences    map[string]*bool // by command: whether one of its sequence runs
	waitingSize  uint64
	idle         chan struct{} // closed when no handler runs, if any goroutine waits
	stopping     chan struct{}
	isStopping   bool
	flows        bool // the peer wants to be sent no more than its window
	sent         uint64
	credited     uint64
	credit       chan struct{}
	peerWindow   uint64
	streamWindow uint64 // of the peer; 0 until it is known
	taken        uint64
	lastCredit   uint64

	// Known after the start.
	peerMetadata map[string]string
	config       []byte
	version      uint32
	hasVersion   bool
}

func newConn(peer string, format Format, options Options, in, out *os.File, blocking bool) (*Conn, error) {
	wake, err := newWake()
	if err != nil {
		return nil, err
	}
	c := &Conn{
		peer: peer, options: options.withDefaults(), base: context.Background(),
		wake: wake, over: make(chan struct{}), stopping: make(chan struct{}),
		readerNeeded: make(chan struct{}, 1), resume: make(chan struct{}, 1),
		calls: map[uint64]*Pending{}, outStreams: map[uint64]*PartWriter{}, requests: map[uint64]*Request{},
		unlisted: map[*requestContext]struct{}{},
	}
	for _, commands := range c.options.InOrder {
		if c.sequences == nil {
			c.sequences = map[string]*bool{}
		}
		busy := new(bool)
		for _, cmd := range commands {
			c.sequences[cmd] = busy
		}
	}
	c.logf = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	c.format.Store(int32(format))
	c.in = reader{
		file: in, fd: int(in.Fd()), wake: wake, buf: make([]byte, readSize), commands: map[string]*command{},
		dec: decoder{format: format, cmdLimit: uint64(c.options.CommandLimit), bufLimit: uint64(c.options.BufferLimit)},
	}
	c.w = newWriter(out, blocking, func(err error) { c.ended(err) })
	c.watcher = time.AfterFunc(time.Hour, c.watch)
	c.watcher.Stop()
	return c, nil
}

// start begins to read.
func (c *Conn) start() {
	c.reading.Lock()
	go c.readLoop()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.over }

// Err is nil while the connection lives, and says then why it has ended. It is ErrClosed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stopping is closed when the plugin is to end: its host has said stop, or is gone.
func (c *Conn) Stopping() <-chan struct{} { return c.stopping }

// PeerMetadata is what the other side has said of itself. It must not be changed.
func (c *Conn) PeerMetadata() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peerMetadata
}

// InterfaceVersion is the highest version of the interface that both sides have named; ok is false
// if one has named none.
func (c *Conn) InterfaceVersion() (version uint32, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version, c.hasVersion
}

func (c *Conn) isOver() bool { return c.ending.Load() }

var errPeerClosed = errors.New("it has closed the connection")

// ended ends the connection: nothing more comes, or nothing can be sent.
func (c *Conn) ended(cause error) {
	if c.explain != nil && !c.isOver() {
		cause = c.explain(cause)
	}
	isEOF := errors.Is(cause, io.EOF)
	if isEOF {
		cause = errPeerClosed
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = &closedError{c.peer, cause}
	c.ending.Store(true)
	if !c.isStopping {
		c.isStopping = true
		close(c.stopping)
	}
	calls, requests, outs := c.calls, c.requests, c.outStreams
	c.calls, c.outStreams = map[uint64]*Pending{}, map[uint64]*PartWriter{}
	c.openCalls.Store(0)
	var running []*Request
	for _, r := range requests {
		running = append(running, r)
	}
	unlisted := c.unlisted
	c.unlisted = map[*requestContext]struct{}{}
	// The writer of a pipeline ends before its answers are read.
	if c.isAnswered = isEOF; !isEOF {
		c.waiting, c.waitingSize = nil, 0
	}
	err := c.err
	close(c.over)
	c.mu.Unlock()
	for _, p := range calls {
		p.finish(nil, fmt.Errorf("%s: no reply: %w", p.cmd, err))
	}
	for _, out := range outs {
		out.fail(err)
	}
	for _, r := range running {
		r.ctx.cancel(context.Canceled)
		r.endStream(err)
	}
	for x := range unlisted {
		x.cancel(context.Canceled)
	}
	c.wake.end()
	c.needReader()
	if c.onEnd != nil {
		go c.onEnd(cause)
	}
}

// closeInput closes the reading end.
func (c *Conn) closeInput() {
	c.in.closing.Lock()
	defer c.in.closing.Unlock()
	if !c.in.closed {
		c.in.closed = true
		_ = c.in.file.Close()
	}
}

// closeOutput closes the writing end, once nothing writes.
func (c *Conn) closeOutput() {
	c.w.mu.Lock()
	if c.w.err == nil {
		c.w.err = os.ErrClosed
	}
	c.w.queue, c.w.queued = nil, 0
	c.w.letIn()
	select {
	case <-c.w.ended:
	default:
		close(c.w.ended)
	}
	// The goroutine that writes, if any, closes it at its end.
	if c.w.closing = true; !c.w.busy {
		c.w.close()
	}
	c.w.mu.Unlock()
}

// pause waits while the peer has sent more than may wait, if it does not know when to wait itself.
func (c *Conn) pause() {
	for {
		c.mu.Lock()
		full := c.features.Load()&featureFlow == 0 && c.waitingSize > uint64(c.options.Window) && len(c.calls) == 0 && c.err == nil
		c.mu.Unlock()
		if !full {
			return
		}
		select {
		case <-c.resume:
		case <-c.over:
			return
		case <-time.After(10 * time.Millisecond): // a call of this side may have begun
		}
	}
}

// respond queues a response. It goes out with the next flush.
func (c *Conn) respond(id uint64, cmd string, buffer []byte) {
	c.w.put(Format(c.format.Load()), id, response, cmd, buffer, true)
}

// refuse answers a request with an error, or tells of a one-way in the log.
func (c *Conn) refuse(id uint64, direction byte, err error, cmd string) {
	if direction != request {
		c.logf("%s: the one-way %.100q is dropped: %v", c.peer, cmd, err)
		return
	}
	cmd, buffer := errorReply(err, c.features.Load()&featureFailure != 0)
	c.respond(id, cmd, buffer)
}

// skipped sees the header of a chunk that is discarded.
func (c *Conn) skipped(d *decoder) {
	c.received.Store(true)
	c.next = nil
	if d.skip == skipDirection {
		return
	}
	what, size, limit := "buffer", d.bufLen, d.bufLimit
	if d.skip == skipCommand {
		what, size, limit = "cmd", d.cmdLen, d.cmdLimit
	}
	err := Errorf(CodeTooLarge, "a %s of %d bytes is over the limit of %d", what, size, limit)
	name := string(d.cmd)
	if d.direction == response {
		if name == cmdPart && d.skip == skipBuffer {
			c.partTooLarge(d.id, true, err)
			return
		}
		c.mu.Lock()
		p := c.calls[d.id]
		if p != nil && !isReserved(name) || p != nil && (name == cmdError || name == cmdFailure) {
			delete(c.calls, d.id)
			c.openCalls.Add(-1)
		} else {
			p = nil
		}
		c.mu.Unlock()
		if p != nil {
			c.replied = true
			p.finish(nil, fmt.Errorf("%s: the reply is lost: %w", p.cmd, err))
		}
		return
	}
	if d.direction == oneWay && name == cmdPart && d.skip == skipBuffer {
		c.partTooLarge(d.id, false, err)
		return
	}
	if !isReserved(name) {
		c.took(64 + d.cmdLen + d.bufLen)
	}
	c.refuse(d.id, byte(d.direction), err, cutText(name, 100))
}

// dispatch handles one chunk. It is false if another goroutine has the reading role now.
func (c *Conn) dispatch(ch chunk, from origin) bool {
	if !c.received.Load() {
		c.received.Store(true)
	}
	head := c.next
	c.next = nil
	if ch.direction == response {
		if ch.cmd.reserved && c.streamChunk(ch) {
			return true
		}
		c.answered(ch)
		return true
	}
	if ch.cmd.reserved {
		if ch.direction == request {
			if ch.cmd.name == cmdPing {
				c.respond(ch.id, cmdPing, nil)
			} else {
				c.refuse(ch.id, request, Errorf(CodeUnknownCommand, "%q is no request of the protocol", ch.cmd.name), ch.cmd.name)
			}
			return true
		}
		c.control(ch)
		return true
	}
	req := &Request{Command: ch.cmd.name, Data: ch.buffer, conn: c, id: ch.id, oneWay: ch.direction == oneWay, cmd: ch.cmd}
	req.ctx.req = req
	if head != nil && head.id == ch.id {
		head.apply(req)
	}
	if !req.oneWay {
		switch {
		case c.metadata != nil && req.Command == cmdMetadata:
			c.took(weight(req.Command, len(req.Data)))
			c.metadata(req)
			return true
		case len(c.services) > 0 && req.Command == cmdServices:
			c.took(weight(req.Command, len(req.Data)))
			c.respond(req.id, cmdServices, describeServices(c.services))
			return true
		}
	}
	if c.hold != nil && c.hold(req) {
		return true
	}
	return c.admit(req, from)
}

// control handles a one-way of the protocol.
func (c *Conn) control(ch chunk) {
	switch ch.cmd.name {
	case cmdContext:
		c.next = parseContext(c, ch)
	case cmdStop:
		if c.stopped != nil {
			c.stopped()
		}
	case cmdCancel:
		c.mu.Lock()
		req := c.requests[ch.id]
		c.mu.Unlock()
		if req != nil && !req.oneWay {
			req.cancelled.Store(true)
			req.ctx.cancel(context.Canceled)
			req.endStream(context.Canceled)
			c.dropWaiting(req)
		}
	case cmdCredit:
		n, ok := parseNumber(string(ch.buffer))
		c.mu.Lock()
		if !ok || n > c.sent || n < c.credited {
			c.mu.Unlock()
			c.logf("%s: a credit of %.40q is ignored", c.peer, ch.buffer)
			return
		}
		c.credited = n
		if c.credit != nil {
			close(c.credit)
			c.credit = nil
			c.spawned = true
		}
		c.mu.Unlock()
	case cmdLogLevel:
		c.setLogLevel(string(ch.buffer))
	default:
		c.streamChunk(ch)
	}
}

func (c *Conn) setLogLevel(level string) {
	switch level {
	case "off", "error", "warn", "info", "debug", "trace":
		if c.logLevel != nil {
			c.logLevel(level)
		}
	default:
		c.logf("%s: the log level %.40q is unknown", c.peer, level)
	}
}

// took counts the weight of what was taken, and tells the peer at the latest after half a window.
func (c *Conn) took(weight uint64) {
	c.mu.Lock()
	c.tookLocked(weight)
	c.mu.Unlock()
}

func (c *Conn) tookLocked(weight uint64) {
	c.taken += weight
	if c.features.Load()&featureFlow == 0 || c.taken-c.lastCredit < uint64(c.options.Window)/2 || c.taken == c.lastCredit {
		return
	}
	c.lastCredit = c.taken
	var number [20]byte
	c.w.put(Format(c.format.Load()), 0, oneWay, cmdCredit, strconv.AppendUint(number[:0], c.taken, 10), false)
}
