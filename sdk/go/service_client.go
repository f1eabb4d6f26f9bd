package pipeplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Client calls the methods of a service of the other side.
type Client struct {
	conn *Conn
	name string
}

// NewClient checks that the other side has a service, in a version that serves callers of version.
func NewClient(conn *Conn, name string, version uint32) (*Client, error) {
	offered := conn.PeerMetadata()[keyServices]
	for _, word := range strings.Fields(offered) {
		service, versions, _ := strings.Cut(word, "/")
		if service != name {
			continue
		}
		oldest, newest, isRange := strings.Cut(versions, "-")
		if !isRange {
			newest = oldest
		}
		from, ok1 := parseNumber(oldest)
		to, ok2 := parseNumber(newest)
		switch v := uint64(version); {
		case !ok1 || !ok2:
			return nil, fmt.Errorf("%s has a service %q whose version is none", conn.peer, word)
		case v < from:
			return nil, fmt.Errorf("%s serves %s from version %d, and this side expects version %d: this side is the older one", conn.peer, name, from, version)
		case v > to:
			return nil, fmt.Errorf("%s serves %s up to version %d, and this side expects version %d: the other side is the older one", conn.peer, name, to, version)
		}
		return &Client{conn, name}, nil
	}
	has := "none"
	if words := strings.Fields(offered); len(words) > 0 {
		has = strings.Join(words, ", ")
	}
	return nil, &wrapped{ErrUnsupported, fmt.Sprintf("%s has no service %q: it has %s", conn.peer, name, printable(has))}
}

// Invoke calls a method and decodes its result. args is a struct, a map, or nil for none.
func Invoke[R any](ctx context.Context, c *Client, method string, args any, options ...CallOption) (R, error) {
	var result R
	data, err := encodeArguments(args)
	if err != nil {
		return result, err
	}
	reply, err := c.conn.Call(ctx, c.name+"."+method, data, options...)
	if err != nil {
		return result, err
	}
	return result, decodeResult(c.name+"."+method, reply, &result)
}

// Notify calls a method without an answer.
func (c *Client) Notify(ctx context.Context, method string, args any) error {
	data, err := encodeArguments(args)
	if err != nil {
		return err
	}
	return c.conn.Notify(ctx, c.name+"."+method, data)
}

// InvokeStream calls a method that takes or gives items.
func InvokeStream[In, Out, R any](ctx context.Context, c *Client, method string, args any, options ...CallOption) (*MethodStream[In, Out, R], error) {
	data, err := encodeArguments(args)
	if err != nil {
		return nil, err
	}
	if typeOf[In]() == nil {
		options = append(options, ReceiveOnly())
	}
	stream, err := c.conn.Stream(ctx, c.name+"."+method, data, options...)
	if err != nil {
		return nil, err
	}
	s := &MethodStream[In, Out, R]{In: &ItemReader[Out]{parts: stream.In}, cmd: c.name + "." + method, stream: stream}
	if stream.Out != nil {
		s.Out = &ItemWriter[In]{parts: stream.Out}
	}
	return s, nil
}

// MethodStream is a call of a method with items.
type MethodStream[In, Out, R any] struct {
	In  *ItemReader[Out] // what the method gives
	Out *ItemWriter[In]  // what it takes; nil if that is nothing

	cmd    string
	stream *Stream
	errors func(error) error
}

// Errors sets what makes the caller's errors of those of the call, such as a function that finds the
// method's own error by MethodError. It returns the stream.
func (s *MethodStream[In, Out, R]) Errors(errors func(error) error) *MethodStream[In, Out, R] {
	s.errors, s.In.errors = errors, errors
	if s.Out != nil {
		s.Out.errors = errors
	}
	return s
}

// Result waits for the result, which follows the items.
func (s *MethodStream[In, Out, R]) Result() (R, error) {
	var result R
	reply, err := s.stream.Reply()
	if err != nil {
		return result, callersError(s.errors, err)
	}
	return result, decodeResult(s.cmd, reply, &result)
}

// All takes the items that are left, and the result. An error gives the call up.
func (s *MethodStream[In, Out, R]) All() ([]Out, R, error) {
	var items []Out
	for {
		item, err := s.In.Recv()
		if err == io.EOF {
			result, err := s.Result()
			return items, result, err
		}
		if err != nil {
			s.Cancel() // also if it is an item that does not fit
			var none R
			return items, none, err
		}
		items = append(items, item)
	}
}

// Cancel gives the call up.
func (s *MethodStream[In, Out, R]) Cancel() { s.stream.Cancel() }

func encodeArguments(args any) ([]byte, error) {
	if args == nil {
		return nil, nil
	}
	data, err := json.Marshal(args)
	if err != nil {
		return nil, Errorf(CodeInvalidArgument, "the arguments cannot be encoded: %v", err)
	}
	return data, nil
}

func decodeResult[R any](cmd string, reply []byte, result *R) error {
	if len(reply) == 0 || typeOf[R]() == nil {
		return nil
	}
	if err := json.Unmarshal(reply, result); err != nil {
		return fmt.Errorf("%s: the result does not fit: %w", cmd, err)
	}
	return nil
}

// MethodError returns the method's own error of type E and the message for people beside it, if err is one.
func MethodError[E any](err error) (own E, message string, ok bool) {
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeMethodError || json.Unmarshal(e.Data, &own) != nil {
		return own, "", false
	}
	return own, e.Message, true
}
