package pipeplug

import (
	"context"
	"fmt"
	"sort"
	"sync"
)

// Mux is a Handler that has one for each command. An unknown command is answered with the code
// "unknown_command".
type Mux struct {
	mu       sync.RWMutex
	handlers map[string]Handler
}

// NewMux returns a Mux without commands.
func NewMux() *Mux { return &Mux{handlers: map[string]Handler{}} }

// Handle sets the handler of a command. It panics if there is one already, if handler is nil, and for
// a command of the protocol, which no handler gets.
func (m *Mux) Handle(cmd string, handler Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch f, isFunc := handler.(HandlerFunc); {
	case handler == nil, isFunc && f == nil:
		panic(fmt.Sprintf("pipeplug: the handler of the command %q is nil", cmd))
	case cmd == cmdMetadata:
		panic("pipeplug: GetMetadata is answered by the library: set Guest.Metadata")
	case isReserved(cmd):
		panic(fmt.Sprintf("pipeplug: the command %q belongs to the protocol, and comes to no handler", cmd))
	}
	if m.handlers[cmd] != nil {
		panic(fmt.Sprintf("pipeplug: the command %q has two handlers", cmd))
	}
	m.handlers[cmd] = handler
}

// HandleFunc sets the handler of a command.
func (m *Mux) HandleFunc(cmd string, handler func(ctx context.Context, req *Request) ([]byte, error)) {
	m.Handle(cmd, HandlerFunc(handler))
}

// Commands lists the commands that have a handler, in order.
func (m *Mux) Commands() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	commands := make([]string, 0, len(m.handlers))
	for cmd := range m.handlers {
		commands = append(commands, cmd)
	}
	sort.Strings(commands)
	return commands
}

func (m *Mux) handler(cmd string) Handler {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.handlers[cmd]
}

// Serve has the handler of the command answer.
func (m *Mux) Serve(ctx context.Context, req *Request) ([]byte, error) {
	if handler := m.handler(req.Command); handler != nil {
		return handler.Serve(ctx, req)
	}
	return nil, unknownCommand(req.Command, m.Commands())
}

func unknownCommand(cmd string, known []string) error {
	err := Errorf(CodeUnknownCommand, "unknown command %q", cmd)
	if known == nil {
		return err
	}
	return err.WithData(map[string][]string{"commands": known})
}
