package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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
	c.w = newWriter(out, blocking, c.cannotWrite)
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
	if isEOF || errors.Is(cause, syscall.EPIPE) {
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

// cannotWrite ends the connection. A peer that reads no more may have written before: that is read
// first, up to the end of it, which tells more than a broken pipe.
func (c *Conn) cannotWrite(err error) {
	if !errors.Is(err, syscall.EPIPE) {
		c.ended(err)
		return
	}
	go func() {
		c.unblock()
		c.needReader()
		select {
		case <-c.over:
		case <-time.After(200 * time.Millisecond):
			c.ended(err)
		}
	}()
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
