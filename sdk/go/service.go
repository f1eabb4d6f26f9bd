package pipeplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"unicode"
)

// Service is a set of methods that describes itself: commands "name.method" with arguments and
// results in JSON. Make it with NewService, and give it to Guest.Services or Host.Services.
type Service struct {
	name        string
	version     uint32
	oldest      uint32
	docs        string
	methods     []*Method
	description json.RawMessage
}

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// NewService returns a service without methods. The name is lowercase letters, digits and "_". It
// panics on another name.
func NewService(name string, version uint32) *Service {
	if !serviceName.MatchString(name) {
		panic(fmt.Sprintf("pipeplug: the name %q of a service is not lowercase letters, digits and _", name))
	}
	return &Service{name: name, version: version, oldest: version}
}

// Docs sets the docs of the service, in Markdown.
func (s *Service) Docs(docs string) *Service {
	s.docs = docs
	return s
}

// Oldest sets the oldest version whose callers are served. Default: the version of the service.
func (s *Service) Oldest(version uint32) *Service {
	s.oldest = version
	return s
}

// Description sets the description that is given to the other side, one service of GetServices as
// JSON, in place of the one that is made of the Go types.
func (s *Service) Description(description json.RawMessage) *Service {
	s.description = description
	return s
}

func (s *Service) versionWord() string {
	if s.oldest != s.version {
		return fmt.Sprintf("%s/%d-%d", s.name, s.oldest, s.version)
	}
	return fmt.Sprintf("%s/%d", s.name, s.version)
}

// Method is one method of a service.
type Method struct {
	name       string
	docs       string
	oneWay     bool
	idempotent bool
	arguments  reflect.Type // nil for none
	itemsIn    reflect.Type
	itemsOut   reflect.Type
	result     reflect.Type
	failure    reflect.Type
	serve      func(ctx context.Context, req *Request) ([]byte, error)
}

// Docs sets the docs of the method, in Markdown.
func (m *Method) Docs(docs string) *Method {
	m.docs = docs
	return m
}

// OneWay declares that the method is called by a one-way, without an answer.
func (m *Method) OneWay() *Method {
	m.oneWay = true
	return m
}

// Idempotent declares that the method does no harm when it is called twice.
func (m *Method) Idempotent() *Method {
	m.idempotent = true
	return m
}

// Fails declares the type of the method's own errors, such as &GreetError{}. An error of this type,
// also a wrapped one, goes to the caller as data.
func (m *Method) Fails(err error) *Method {
	m.failure = reflect.TypeOf(err)
	return m
}

// None is the type of arguments, items or results that a method does not have.
type None struct{}

var noneType = reflect.TypeOf(None{})

func typeOf[T any]() reflect.Type {
	t := reflect.TypeOf((*T)(nil)).Elem()
	if t == noneType {
		return nil
	}
	return t
}

// AddMethod adds a method to a service. A is a struct whose fields are the arguments, or None; R is
// the result, or None. Tags of fields: json has the name, default a default value, doc the docs.
func AddMethod[A, R any](s *Service, name string, f func(ctx context.Context, args A) (R, error)) *Method {
	m := &Method{name: name, arguments: typeOf[A](), result: typeOf[R]()}
	m.serve = func(ctx context.Context, req *Request) ([]byte, error) {
		var args A
		if err := decodeArguments(req, m.arguments, &args); err != nil {
			return nil, err
		}
		result, err := f(ctx, args)
		return m.answer(result, err)
	}
	return s.add(m)
}

// AddStream adds a method that takes items, gives items, or both: In or Out is None for none.
func AddStream[A, In, Out, R any](s *Service, name string, f func(ctx context.Context, args A, in *ItemReader[In], out *ItemWriter[Out]) (R, error)) *Method {
	m := &Method{name: name, arguments: typeOf[A](), itemsIn: typeOf[In](), itemsOut: typeOf[Out](), result: typeOf[R]()}
	m.serve = func(ctx context.Context, req *Request) ([]byte, error) {
		var args A
		if err := decodeArguments(req, m.arguments, &args); err != nil {
			return nil, err
		}
		var in *ItemReader[In]
		var out *ItemWriter[Out]
		if m.itemsIn != nil {
			in = &ItemReader[In]{req.Parts()}
		}
		if m.itemsOut != nil {
			parts, err := req.ReplyParts()
			if err != nil {
				return nil, err
			}
			out = &ItemWriter[Out]{parts}
		}
		result, err := f(ctx, args, in, out)
		return m.answer(result, err)
	}
	return s.add(m)
}

func (s *Service) add(m *Method) *Method {
	for _, other := range s.methods {
		if other.name == m.name {
			panic(fmt.Sprintf("pipeplug: the service %s has two methods %q", s.name, m.name))
		}
	}
	s.methods = append(s.methods, m)
	return m
}

// Register adds the exported methods of a value that look like one of these, under their names in
// snake case; A is a struct:
//
//	func(ctx context.Context, args A) (R, error)
//	func(ctx context.Context, args A) error
//	func(ctx context.Context) (R, error)
//	func(ctx context.Context) error
//
// It panics if the value has none. Lookup finds a method to add docs.
func (s *Service) Register(receiver any) *Service {
	value := reflect.ValueOf(receiver)
	found := false
	for i := 0; i < value.NumMethod(); i++ {
		if m := reflectMethod(snakeCase(value.Type().Method(i).Name), value.Method(i)); m != nil {
			s.add(m)
			found = true
		}
	}
	if !found {
		panic(fmt.Sprintf("pipeplug: %T has no methods that a service can have", receiver))
	}
	return s
}

// Lookup returns a method of the service. It panics if there is none.
func (s *Service) Lookup(name string) *Method {
	for _, m := range s.methods {
		if m.name == name {
			return m
		}
	}
	panic(fmt.Sprintf("pipeplug: the service %s has no method %q", s.name, name))
}

var (
	contextType = reflect.TypeOf((*context.Context)(nil)).Elem()
	errorType   = reflect.TypeOf((*error)(nil)).Elem()
)

func reflectMethod(name string, f reflect.Value) *Method {
	t := f.Type()
	if t.NumIn() < 1 || t.NumIn() > 2 || t.In(0) != contextType || t.NumOut() < 1 || t.NumOut() > 2 || t.Out(t.NumOut()-1) != errorType {
		return nil
	}
	m := &Method{name: name}
	if t.NumIn() == 2 {
		if m.arguments = t.In(1); m.arguments.Kind() != reflect.Struct {
			return nil
		}
	}
	if t.NumOut() == 2 {
		m.result = t.Out(0)
	}
	m.serve = func(ctx context.Context, req *Request) ([]byte, error) {
		in := []reflect.Value{reflect.ValueOf(ctx)}
		if m.arguments != nil {
			args := reflect.New(m.arguments)
			if err := decodeArguments(req, m.arguments, args.Interface()); err != nil {
				return nil, err
			}
			in = append(in, args.Elem())
		} else if err := decodeArguments(req, nil, nil); err != nil {
			return nil, err
		}
		out := f.Call(in)
		err, _ := out[len(out)-1].Interface().(error)
		if m.result == nil {
			return m.answer(nil, err)
		}
		return m.answer(out[0].Interface(), err)
	}
	return m
}

func snakeCase(name string) string {
	var out strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) {
			if i > 0 && (!unicode.IsUpper(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))) {
				out.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

// answer is the reply of a method.
func (m *Method) answer(result any, err error) ([]byte, error) {
	if err != nil {
		return nil, m.ownError(err)
	}
	if m.result == nil {
		return nil, nil
	}
	text, err := json.Marshal(result)
	if err != nil {
		return nil, Errorf(CodeInvalidResult, "the result cannot be encoded: %v", err)
	}
	return text, nil
}

// ownError makes a failure of the method's own error.
func (m *Method) ownError(err error) error {
	if m.failure == nil {
		return err
	}
	own := reflect.New(m.failure)
	if !errors.As(err, own.Interface()) {
		return err
	}
	data, encoding := json.Marshal(own.Elem().Interface())
	if encoding != nil {
		return err
	}
	return &Error{Code: CodeMethodError, Message: err.Error(), Data: data}
}

// decodeArguments fills into, a pointer to a struct, with the arguments of a request.
func decodeArguments(req *Request, t reflect.Type, into any) error {
	object := map[string]json.RawMessage{}
	if len(req.Data) > 0 {
		parsed, ok := parseObject(req.Data)
		if !ok {
			return Errorf(CodeInvalidArgument, "%s: the arguments are no JSON object: %.100q", req.Command, req.Data)
		}
		object = parsed
	}
	if t == nil {
		return nil
	}
	if t.Kind() == reflect.Struct {
		value := reflect.ValueOf(into).Elem()
		for _, f := range fieldsOf(t) {
			text, given := object[f.name]
			switch {
			case given && string(text) == "null" && !f.nullable:
				return invalidArgument(req.Command, f.name, "is null")
			case given:
			case f.hasDefault:
				if err := json.Unmarshal(f.defaultJSON, value.FieldByIndex(f.index).Addr().Interface()); err != nil {
					return fmt.Errorf("the default of the argument %q does not fit: %w", f.name, err)
				}
			case f.required:
				return invalidArgument(req.Command, f.name, "is missing")
			}
		}
	}
	if len(req.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(req.Data, into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return invalidArgument(req.Command, wrong.Field, fmt.Sprintf("is a %s, and should be %s", wrong.Value, wrong.Type))
		}
		return Errorf(CodeInvalidArgument, "%s: %v", req.Command, err)
	}
	return nil
}

func invalidArgument(cmd, field, problem string) error {
	return Errorf(CodeInvalidArgument, "%s: the argument %q %s", cmd, field, problem).WithData(map[string]string{"field": field})
}

// ItemReader takes items of a stream.
type ItemReader[T any] struct{ parts *PartReader }

// Recv returns the next item; io.EOF after the last one.
func (r *ItemReader[T]) Recv() (T, error) {
	var item T
	part, err := r.parts.Recv()
	if err != nil {
		return item, err
	}
	if err := json.Unmarshal(part, &item); err != nil {
		return item, Errorf(CodeInvalidArgument, "an item does not fit: %v", err)
	}
	return item, nil
}

// Enough tells the sender that no more items are wanted.
func (r *ItemReader[T]) Enough(reason string) { r.parts.Enough(reason) }

// ItemWriter sends items of a stream.
type ItemWriter[T any] struct{ parts *PartWriter }

// Send sends an item. The error is ErrEnough if the receiver wants no more.
func (w *ItemWriter[T]) Send(item T) error {
	text, err := json.Marshal(item)
	if err != nil {
		return Errorf(CodeInvalidResult, "an item cannot be encoded: %v", err)
	}
	return w.parts.Send(text)
}

// Close says that the items are complete.
func (w *ItemWriter[T]) Close() error { return w.parts.Close() }

// routeServices has methods answer their commands, and a handler all others.
func routeServices(services []*Service, handler Handler) Handler {
	if handler == nil {
		handler = NewMux()
	}
	if len(services) == 0 {
		return handler
	}
	methods := map[string]*Method{}
	for _, s := range services {
		for _, m := range s.methods {
			methods[s.name+"."+m.name] = m
		}
	}
	return HandlerFunc(func(ctx context.Context, req *Request) ([]byte, error) {
		if m := methods[req.Command]; m != nil {
			return m.serve(ctx, req)
		}
		return handler.Serve(ctx, req)
	})
}

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
	return nil, fmt.Errorf("%s has no service %q; it has %q: %w", conn.peer, name, offered, ErrUnsupported)
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
	s := &MethodStream[In, Out, R]{In: &ItemReader[Out]{stream.In}, cmd: c.name + "." + method, stream: stream}
	if stream.Out != nil {
		s.Out = &ItemWriter[In]{stream.Out}
	}
	return s, nil
}

// MethodStream is a call of a method with items.
type MethodStream[In, Out, R any] struct {
	In  *ItemReader[Out] // what the method gives
	Out *ItemWriter[In]  // what it takes; nil if that is nothing

	cmd    string
	stream *Stream
}

// Result waits for the result, which follows the items.
func (s *MethodStream[In, Out, R]) Result() (R, error) {
	var result R
	reply, err := s.stream.Reply()
	if err != nil {
		return result, err
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

// MethodError returns the method's own error of type E, if err is one.
func MethodError[E any](err error) (own E, ok bool) {
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeMethodError || json.Unmarshal(e.Data, &own) != nil {
		return own, false
	}
	return own, true
}

// describeServices is the answer to GetServices.
func describeServices(services []*Service) []byte {
	descriptions := make([]json.RawMessage, 0, len(services))
	for _, s := range services {
		descriptions = append(descriptions, s.describe())
	}
	text, err := json.Marshal(map[string]any{"services": descriptions})
	if err != nil {
		panic(fmt.Sprintf("pipeplug: the description of a service is no JSON: %v", err))
	}
	return text
}

func (s *Service) describe() json.RawMessage {
	if s.description != nil {
		return s.description
	}
	schemas := newSchemas()
	var methods []map[string]any
	sorted := append([]*Method(nil), s.methods...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].name < sorted[j].name })
	for _, m := range sorted {
		d := map[string]any{"name": m.name, "command": s.name + "." + m.name}
		if m.docs != "" {
			d["docs"] = m.docs
		}
		if m.oneWay {
			d["one_way"] = true
		}
		if m.idempotent {
			d["idempotent"] = true
		}
		if m.arguments != nil {
			d["arguments"] = schemas.inline(m.arguments)
		}
		for key, t := range map[string]reflect.Type{"items_in": m.itemsIn, "items_out": m.itemsOut, "result": m.result, "error": m.failure} {
			if t != nil {
				d[key] = schemas.of(t)
			}
		}
		methods = append(methods, d)
	}
	d := map[string]any{"name": s.name, "version": s.version, "oldest": s.oldest, "methods": methods}
	if s.docs != "" {
		d["docs"] = s.docs
	}
	if len(schemas.defs) > 0 {
		d["$defs"] = schemas.defs
	}
	text, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("pipeplug: the service %s cannot be described: %v", s.name, err))
	}
	return text
}
