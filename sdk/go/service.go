package pipeplug

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
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
	if !value.IsValid() {
		panic(fmt.Sprintf("pipeplug: Register of the service %s got nil", s.name))
	}
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
