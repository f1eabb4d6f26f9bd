package pipeplug

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// copyLimit is the size up to which a buffer is copied behind its header. A larger one is
	// written from where it is.
	copyLimit = 64 << 10
	// batchLimit is the size at which a batch of chunks is written without waiting for more.
	batchLimit = 64 << 10
	// queueLimit is how much waits to be written before callers have to wait, too.
	queueLimit = 1 << 20
	// pipeBuf is PIPE_BUF: what a pipe takes as a whole or not at all.
	pipeBuf = 4096
	// writeSize is how much is written at a time: the reader begins to read when a write has ended.
	writeSize = 128 << 10
	// smallestPipe is what a pipe is taken to hold before it is grown.
	smallestPipe = 64 << 10
	// largestPipe is what any user may grow a pipe to.
	largestPipe = 1 << 20
)

// piece is what is written in one go: chunks, or a large buffer.
type piece struct {
	bytes    []byte
	header   int  // bytes of it, of a chunk of the classic format
	batch    bool // bytes may get more chunks, and go back to the pool
	borrowed bool // bytes are the user's, and are copied before they are left to another goroutine
}

// patience is what a goroutine that writes does when the pipe is full.
type patience int

const (
	leave patience = iota // has another goroutine write the rest: this one reads, or runs a handler for that
	brief                 // waits as long as the reader takes something every few milliseconds
	block                 // waits
)

const (
	briefWait  = int64(2 * time.Millisecond)
	briefTotal = 20 * time.Millisecond
)

// writer writes chunks. One goroutine at a time has the writing role; the others leave what they
// have in the queue. No write blocks the goroutine that reads, or that runs a handler.
type writer struct {
	file     *os.File
	fd       int
	blocking bool // the descriptor has no O_NONBLOCK, since others share it

	mu              sync.Mutex
	queue           []piece
	spare           []piece
	queued          int
	busy            bool // a goroutine has the writing role
	closing, closed bool
	err             error
	failed          func(error)
	room            chan struct{} // closed when there is room again, if any caller waits

	written chan struct{} // closed when nothing is left to write, if any goroutine waits
	format  Format
	flusher chan struct{}
	ended   chan struct{}

	readsOnce atomic.Bool // the reader may be that of the original Go package
	pipe      sync.Mutex
	holds     int  // what the pipe holds
	isGrown   bool // as far as it may
}

var batches = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

func newWriter(file *os.File, blocking bool, failed func(error)) *writer {
	w := &writer{file: file, fd: int(file.Fd()), blocking: blocking, failed: failed, holds: smallestPipe, ended: make(chan struct{})}
	if !blocking {
		_ = syscall.SetNonblock(w.fd, true) // Fd has set it to blocking
	}
	w.readsOnce.Store(true) // until it has said what it is
	return w
}

// put queues a chunk. The buffer is not copied if it is large and owned: it must not change then.
// It returns false if the connection cannot be written to.
func (w *writer) put(format Format, id uint64, direction byte, cmd string, buffer []byte, owned bool) bool {
	w.mu.Lock()
	ok := w.putLocked(format, id, direction, cmd, buffer, owned)
	w.mu.Unlock()
	return ok
}

func (w *writer) putLocked(format Format, id uint64, direction byte, cmd string, buffer []byte, owned bool) bool {
	if w.err != nil {
		return false
	}
	w.format = format
	last := len(w.queue) - 1
	// Each write of the classic format is one chunk.
	if last < 0 || !w.queue[last].batch || format == FormatClassic || len(w.queue[last].bytes) > batchLimit {
		b := batches.Get().(*[]byte)
		w.queue = append(w.queue, piece{bytes: (*b)[:0], batch: true})
		last++
	}
	p := &w.queue[last]
	before := len(p.bytes)
	p.bytes = appendHeader(p.bytes, format, id, direction, cmd, len(buffer))
	if format == FormatClassic {
		p.header = len(p.bytes)
	}
	if len(buffer) <= copyLimit || format == FormatClassic {
		p.bytes = append(p.bytes, buffer...)
		w.queued += len(p.bytes) - before
		return true
	}
	w.queued += len(p.bytes) - before + len(buffer)
	if !owned {
		buffer = append([]byte(nil), buffer...)
	}
	w.queue = append(w.queue, piece{bytes: buffer})
	return true
}

// send queues a chunk behind its context, if it has one. A large buffer is written from where it is,
// by this goroutine, which is not the one that reads. The buffer may be changed afterwards.
func (w *writer) send(format Format, id uint64, direction byte, cmd string, buffer, head []byte) bool {
	w.mu.Lock()
	if head != nil {
		w.putLocked(format, id, oneWay, cmdContext, head, false)
	}
	if len(buffer) <= copyLimit || format == FormatClassic || w.busy || w.err != nil {
		ok := w.putLocked(format, id, direction, cmd, buffer, false)
		w.mu.Unlock()
		return ok
	}
	w.putLocked(format, id, direction, cmd, buffer, true)
	w.queue[len(w.queue)-1].borrowed = true
	w.busy = true
	w.mu.Unlock()
	w.drain(brief)
	return true
}

// flush writes what is queued, as far as that does not block. The rest is written in the background.
func (w *writer) flush() { w.flushAs(leave) }

func (w *writer) flushAs(p patience) {
	w.mu.Lock()
	if w.busy || len(w.queue) == 0 {
		w.mu.Unlock()
		return
	}
	w.busy = true
	w.mu.Unlock()
	w.drain(p)
}

// flushSoon lets other goroutines that are ready add to the batch before it is written.
func (w *writer) flushSoon() {
	w.mu.Lock()
	idle := !w.busy && w.queued < batchLimit/2
	w.mu.Unlock()
	if idle {
		runtime.Gosched()
	}
	w.flush()
}

// flushLater has the batch written by another goroutine, unless it is large.
func (w *writer) flushLater() {
	w.mu.Lock()
	if w.busy || len(w.queue) == 0 {
		w.mu.Unlock()
		return
	}
	if w.queued >= batchLimit/2 {
		w.busy = true
		w.mu.Unlock()
		w.drain(leave)
		return
	}
	if w.flusher == nil {
		w.flusher = make(chan struct{}, 1)
		go func() {
			for {
				select {
				case <-w.flusher:
					w.flush()
				case <-w.ended:
					return
				}
			}
		}()
	}
	flusher := w.flusher
	w.mu.Unlock()
	select {
	case flusher <- struct{}{}:
	default:
	}
}

// drain writes the queue. The caller has the writing role, and has it no more afterwards.
func (w *writer) drain(p patience) {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || w.err != nil {
			w.busy = false
			if w.closing {
				w.close()
			}
			if w.written != nil {
				close(w.written)
				w.written = nil
			}
			w.mu.Unlock()
			return
		}
		todo, format := w.queue, w.format
		w.queue = w.spare[:0]
		w.spare = nil
		w.mu.Unlock()

		for i := range todo {
			n, err := w.write(todo[i], format, p)
			if err == syscall.EAGAIN {
				w.mu.Lock()
				w.settle(n)
				for j := i; j < len(todo); j++ {
					if todo[j].borrowed {
						from := 0
						if j == i {
							from = n
						}
						copied := append(make([]byte, 0, len(todo[j].bytes)-from), todo[j].bytes[from:]...)
						todo[j] = piece{bytes: copied}
						if j == i {
							n = 0
						}
					}
				}
				first := piece{bytes: todo[i].bytes[n:]}
				if n == 0 {
					first.header = todo[i].header
				}
				rest := append([]piece{first}, todo[i+1:]...)
				w.queue = append(rest, w.queue...)
				w.mu.Unlock()
				go w.drain(block)
				return
			}
			w.mu.Lock()
			w.settle(len(todo[i].bytes))
			if err != nil && w.err == nil {
				w.err = err
				w.queue, w.queued = nil, 0
				w.letIn()
			}
			w.mu.Unlock()
			if err != nil {
				w.failed(err)
				break
			}
			if todo[i].batch && cap(todo[i].bytes) <= 2*batchLimit {
				b := todo[i].bytes
				batches.Put(&b)
			}
			todo[i] = piece{}
		}
		w.mu.Lock()
		if cap(todo) <= 64 {
			w.spare = todo[:0]
		}
		w.mu.Unlock()
	}
}

// close closes the descriptor. The caller has the lock, and no goroutine the role.
func (w *writer) close() {
	if !w.closed {
		w.closed = true
		// A socket is open in the other direction still, by another descriptor. A pipe gives an error.
		_ = syscall.Shutdown(w.fd, syscall.SHUT_WR)
		_ = w.file.Close()
	}
}

// settle counts n bytes as written.
func (w *writer) settle(n int) {
	w.queued -= n
	if w.queued < queueLimit {
		w.letIn()
	}
}

func (w *writer) letIn() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// waitRoom waits while too much is queued.
func (w *writer) waitRoom(ctx context.Context, blocks func()) error {
	for {
		w.mu.Lock()
		if w.queued < queueLimit || w.err != nil {
			w.mu.Unlock()
			return nil
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		w.flush()
		blocks()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ended:
			return nil
		}
	}
}

// waitWritten waits until all is written, or the time is over.
func (w *writer) waitWritten(timeout <-chan time.Time) {
	w.flush()
	w.mu.Lock()
	if w.err != nil || (!w.busy && len(w.queue) == 0) {
		w.mu.Unlock()
		return
	}
	if w.written == nil {
		w.written = make(chan struct{})
	}
	written := w.written
	w.mu.Unlock()
	select {
	case <-written:
	case <-timeout:
	case <-w.ended:
	}
}
