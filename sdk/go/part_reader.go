package pipeplug

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
)

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
