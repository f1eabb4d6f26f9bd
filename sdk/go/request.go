package pipeplug

import (
	"context"
	"errors"
	"sync/atomic"
)

// A Handler answers requests and takes one-ways. It is called by many goroutines at once.
//
// ctx ends when the caller has given the request up, at its deadline, when the connection ends, and
// when Handle has returned. The reply must not be changed afterwards. An error goes to the caller:
// with code and data if it is, or wraps, an *Error. A panic is answered with an error, too.
type Handler interface {
	Serve(ctx context.Context, req *Request) (reply []byte, err error)
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, req *Request) ([]byte, error)

// Serve calls f.
func (f HandlerFunc) Serve(ctx context.Context, req *Request) ([]byte, error) { return f(ctx, req) }

// A Request is what a handler is asked, or told: a one-way.
type Request struct {
	Command string
	Data    []byte // the handler may keep and change it

	conn      *Conn
	id        uint64
	cmd       *command
	oneWay    bool
	inline    uint32 // its number if it runs on the goroutine that reads
	listed    bool   // in the table of requests
	turn      *bool  // of its sequence of commands
	cancelled atomic.Bool
	ctx       requestContext
	parts     *PartReader
	replies   *PartWriter
	progress  *progressSender
}

// Conn is the connection that the request came over, to call the other side.
func (r *Request) Conn() *Conn { return r.conn }

// IsOneWay tells whether it has no reply.
func (r *Request) IsOneWay() bool { return r.oneWay }

// Progress tells a caller who wants to know how far the work is. It may be called as often as one
// likes: the first report is sent at once, then the latest every 50 ms, and the last one before the
// reply. total may be 0 if it is not known.
func (r *Request) Progress(done, total uint64, message string) {
	if r.progress != nil {
		r.progress.report(done, total, message)
	}
}

// errNoStream is for a handler whose caller has not opened a stream.
var errNoStream = errors.New("the caller takes no parts: this command needs a stream")

// Parts returns the parts that follow the request. It is empty if none do.
func (r *Request) Parts() *PartReader {
	if r.parts == nil {
		return &PartReader{conn: r.conn, ctx: &r.ctx, ended: true, used: true}
	}
	r.parts.mu.Lock()
	r.parts.used = true
	r.parts.mu.Unlock()
	return r.parts
}

// ReplyParts sends parts before the reply. It is an error if the caller takes none.
func (r *Request) ReplyParts() (*PartWriter, error) {
	if r.replies == nil {
		return nil, errNoStream
	}
	return r.replies, nil
}
