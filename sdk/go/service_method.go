package pipeplug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

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
			in = &ItemReader[In]{parts: req.Parts()}
		}
		if m.itemsOut != nil {
			parts, err := req.ReplyParts()
			if err != nil {
				return nil, err
			}
			out = &ItemWriter[Out]{parts: parts}
		}
		result, err := f(ctx, args, in, out)
		return m.answer(result, err)
	}
	return s.add(m)
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
			return Errorf(CodeInvalidArgument, "the arguments are no JSON object: %.100q", req.Data)
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
				return invalidArgument(f.name, "is null")
			case given:
			case f.hasDefault:
				if err := json.Unmarshal(f.defaultJSON, value.FieldByIndex(f.index).Addr().Interface()); err != nil {
					return fmt.Errorf("the default of the argument %q does not fit: %w", f.name, err)
				}
			case f.required:
				return invalidArgument(f.name, "is missing")
			}
		}
	}
	if len(req.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(req.Data, into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return invalidArgument(wrong.Field, fmt.Sprintf("is a %s, and should be %s", wrong.Value, wrong.Type))
		}
		return Errorf(CodeInvalidArgument, "the arguments do not fit: %v", err)
	}
	return nil
}

func invalidArgument(field, problem string) error {
	return Errorf(CodeInvalidArgument, "the argument %q %s", field, problem).WithData(map[string]string{"field": field})
}
