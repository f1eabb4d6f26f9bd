package pipeplug

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// maxContext is the limit of the buffer of a cmd.context, and of a cmd.progress.
const maxContext = 4096

// chunkContext is what a cmd.context says of the chunk that follows it.
type chunkContext struct {
	id       uint64
	deadline time.Time
	send     bool // parts follow
	receive  bool // parts of the reply are taken
	progress bool
	values   map[string]string
}

type contextJSON struct {
	DeadlineMS *uint64           `json:"deadline_ms,omitempty"`
	Stream     string            `json:"stream,omitempty"`
	Progress   bool              `json:"progress,omitempty"`
	Values     map[string]string `json:"values,omitempty"`
}

// contextFor is the buffer of the cmd.context for a chunk, or nil for none.
func (c *Conn) contextFor(ctx context.Context, o *callOptions) ([]byte, error) {
	features := c.features.Load()
	if features&featureContext == 0 {
		return nil, nil
	}
	var head contextJSON
	needed := false
	if deadline, ok := ctx.Deadline(); ok && o.isCall {
		left := millisLeft(deadline)
		head.DeadlineMS, needed = &left, true
	}
	if o.words != "" {
		head.Stream, needed = o.words, true
	}
	if o.progress != nil && features&featureProgress != 0 {
		head.Progress, needed = true, true
	}
	if values := Values(ctx); len(values) > 0 {
		head.Values, needed = values, true
	}
	if !needed {
		return nil, nil
	}
	if head.Stream == "" && !head.Progress && head.Values == nil {
		return appendDeadline(make([]byte, 0, 40), *head.DeadlineMS), nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(head); err != nil {
		return nil, err
	}
	if text.Len()-1 > maxContext {
		return nil, errors.New("the values of the context are longer than 4096 bytes")
	}
	return text.Bytes()[:text.Len()-1], nil
}

// parseContext reads a cmd.context; nil for one that is ignored.
func parseContext(c *Conn, ch chunk) *chunkContext {
	if c.accepts.Load()&featureContext == 0 {
		c.logf("%s: a context is ignored, since the feature was not agreed", c.peer)
		return nil
	}
	object, ok := parseObject(ch.buffer)
	if len(ch.buffer) > maxContext || !ok {
		c.logf("%s: a context that is no JSON object of at most %d bytes is ignored", c.peer, maxContext)
		return nil
	}
	head := &chunkContext{id: ch.id}
	good := true
	if text, ok := object["deadline_ms"]; ok {
		ms, isNumber := parseNumber(string(text))
		good = good && isNumber
		// A deadline that no clock reaches is none.
		if ms < uint64(1<<62/time.Millisecond) {
			head.deadline = time.Now().Add(time.Duration(ms) * time.Millisecond)
		}
	}
	if text, ok := object["stream"]; ok {
		var words string
		good = good && text[0] == '"' && json.Unmarshal(text, &words) == nil
		for _, word := range strings.Split(words, " ") {
			switch word {
			case "send":
				head.send = true
			case "receive":
				head.receive = true
			}
		}
		if c.accepts.Load()&featureStream == 0 {
			head.send, head.receive = false, false
		}
	}
	if text, ok := object["progress"]; ok {
		good = good && (string(text) == "true" || string(text) == "false")
		head.progress = string(text) == "true" && c.accepts.Load()&featureProgress != 0
	}
	if text, ok := object["values"]; ok {
		values, isObject := parseObject(text)
		good = good && isObject
		head.values = map[string]string{}
		for key, value := range values {
			var s string
			good = good && value[0] == '"' && json.Unmarshal(value, &s) == nil
			head.values[key] = s
		}
	}
	if !good {
		c.logf("%s: a context with another value is ignored: %.100q", c.peer, ch.buffer)
		return nil
	}
	return head
}

// parseObject reads a JSON object; null is none.
func parseObject(text []byte) (map[string]json.RawMessage, bool) {
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(trimmed, &object) != nil {
		return nil, false
	}
	return object, true
}

// apply gives a request what its context says.
func (h *chunkContext) apply(req *Request) {
	req.ctx.deadline = h.deadline
	req.ctx.values = h.values
	c := req.conn
	if h.send {
		req.parts = newPartReader(c, req.id, oneWay, &req.ctx)
	}
	if h.receive && !req.oneWay {
		req.replies = newPartWriter(c, req.id, response, &req.ctx)
	}
	if h.progress && !req.oneWay {
		req.progress = &progressSender{req: req}
	}
}

func appendDeadline(to []byte, ms uint64) []byte {
	to = append(to, `{"deadline_ms":`...)
	to = strconv.AppendUint(to, ms, 10)
	return append(to, '}')
}
