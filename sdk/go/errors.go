package pipeplug

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Errors of a connection. Test for them with errors.Is.
var (
	// ErrClosed: the connection has ended. The error that wraps it says why.
	ErrClosed = errors.New("the connection has ended")
	// ErrHostGone is what Guest.Serve returns when the host went without saying stop.
	ErrHostGone = errors.New("the host is gone")
	// ErrByHand is what Guest.Serve returns when no host has started this process.
	ErrByHand = errors.New("started by hand: this program is a plugin, which a host starts")
	// ErrUnsupported: the peer does not have the feature, such as streams.
	ErrUnsupported = errors.New("the peer does not support it")
	// ErrReserved: a command that begins with "cmd.", or GetMetadata, is not for users.
	ErrReserved = errors.New("the command belongs to the protocol")
	// ErrCommand: a command that cannot be written: too long, not UTF-8, or with a space or NUL in
	// the classic format.
	ErrCommand = errors.New("the command cannot be sent")
	// ErrEnough: the receiver wants no more parts.
	ErrEnough = errors.New("the receiver wants no more parts")
	// ErrAborted: the sender has ended a stream early.
	ErrAborted = errors.New("the sender has ended the stream early")
)

// Codes with the same meaning for every plugin. docs/protocol.md, "Failures", has the table.
const (
	CodeUnknownCommand  = "unknown_command"
	CodeRefused         = "refused"
	CodeOverloaded      = "overloaded"
	CodeCancelled       = "cancelled"
	CodeDeadline        = "deadline"
	CodeTooLarge        = "too_large"
	CodePanicked        = "panicked"
	CodeUnanswered      = "unanswered"
	CodeMethodError     = "method_error"
	CodeInvalidArgument = "invalid_argument"
	CodeInvalidResult   = "invalid_result"
)

// Errors to compare with by errors.Is: every Error with this code is one.
var (
	ErrUnknownCommand  = &Error{Code: CodeUnknownCommand}
	ErrRefused         = &Error{Code: CodeRefused}
	ErrOverloaded      = &Error{Code: CodeOverloaded}
	ErrCancelled       = &Error{Code: CodeCancelled}
	ErrDeadline        = &Error{Code: CodeDeadline}
	ErrTooLarge        = &Error{Code: CodeTooLarge}
	ErrPanicked        = &Error{Code: CodePanicked}
	ErrInvalidArgument = &Error{Code: CodeInvalidArgument}
)

// An Error is the answer of a request that failed. A handler returns one to give its caller a code,
// and Call returns one if the other side has answered with an error.
type Error struct {
	Code    string          // for programs: lowercase words joined by "_"; empty for none
	Message string          // for people
	Data    json.RawMessage // any JSON that belongs to the code; nil for none
}

// Errorf makes an Error with a code, or "" for none, and a formatted message. It panics if the code is
// not lowercase words joined by "_": programs compare it.
func Errorf(code, format string, args ...any) *Error {
	if code != "" && !isCode(code) {
		panic(fmt.Sprintf("pipeplug: the code %q of an error is not lowercase words joined by _, as in not_found", code))
	}
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// isCode tells whether a code is lowercase words joined by "_".
func isCode(code string) bool {
	for _, word := range strings.Split(code, "_") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return code[0] > '9'
}

// WithData returns a copy of the error with data. Data that package json cannot encode is left out.
func (e *Error) WithData(data any) *Error {
	with := *e
	with.Data = nil
	if text, err := json.Marshal(data); err == nil {
		with.Data = text
	}
	return &with
}

// Error is the message, with code and data behind it.
func (e *Error) Error() string {
	var details []string
	if e.Code != "" && e.Message != "" {
		details = append(details, e.Code)
	}
	if len(e.Data) > 0 {
		data := string(e.Data)
		var short bytes.Buffer
		if json.Compact(&short, e.Data) == nil {
			data = short.String()
		}
		if len(data) > maxDataShown {
			data = cutText(data, maxDataShown) + "…"
		}
		details = append(details, printable(data))
	}
	if len(details) == 0 {
		return e.text()
	}
	return e.text() + " (" + strings.Join(details, ", ") + ")"
}

// maxDataShown is how much of the data is part of the text.
const maxDataShown = 500

// text is what is for people.
func (e *Error) text() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// Is tells whether target is an Error with this code and nothing else.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code != "" && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}

// maxFailure is the limit of the buffer of a cmd.failure.
const maxFailure = 65536

type failureJSON struct {
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// plainError is what err says, in a value that runs no code of the user's. It panics where a method of
// err does: a pointer of an error's type that is nil is no nil error.
func plainError(err error) *Error {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if v := reflect.ValueOf(err); v.Kind() == reflect.Pointer && v.IsNil() {
			cause = fmt.Sprintf("its error is a nil %T, which is not nil as an error: return nil itself", err)
		}
		panic(cause)
	}()
	message := err.Error()
	var e *Error
	if !errors.As(err, &e) || e == nil {
		return &Error{Message: message}
	}
	// Code and data go beside the message.
	return &Error{Code: e.Code, Message: strings.Replace(message, e.Error(), e.text(), 1), Data: e.Data}
}

// errorReply is the cmd and buffer that answer a request which failed with err.
func errorReply(err error, coded bool) (cmd string, buffer []byte) {
	e := plainError(err)
	message := e.text()
	if !coded || e.Code == "" {
		return cmdError, []byte(message)
	}
	failure := failureJSON{Code: e.Code, Message: message, Data: e.Data}
	if !json.Valid(e.Data) {
		failure.Data = nil
	}
	text, err := json.Marshal(failure)
	if err == nil && len(text) <= maxFailure {
		return cmdFailure, text
	}
	failure.Data = nil
	for {
		text, err = json.Marshal(failure)
		if err != nil {
			return cmdError, []byte(message)
		}
		if len(text) <= maxFailure {
			return cmdFailure, text
		}
		if len(failure.Message) == 0 {
			failure.Code = "too_large"
			continue
		}
		failure.Message = cutText(failure.Message, len(failure.Message)-1-(len(text)-maxFailure)/6)
	}
}

// cutText returns at most n bytes of a text, whole characters.
func cutText(text string, n int) string {
	if n >= len(text) {
		return text
	}
	if n < 0 {
		n = 0
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// parseFailure reads the buffer of a cmd.failure.
func parseFailure(buffer []byte) *Error {
	var failure struct {
		Code    *string         `json:"code"`
		Message *string         `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	if len(buffer) > maxFailure || json.Unmarshal(buffer, &failure) != nil || failure.Code == nil || failure.Message == nil {
		return &Error{Message: string(buffer)}
	}
	if string(failure.Data) == "null" {
		failure.Data = nil
	}
	return &Error{Code: *failure.Code, Message: *failure.Message, Data: failure.Data}
}

// closedError is the end of a connection with its cause; it is ErrClosed.
type closedError struct {
	peer  string
	cause error
}

func (e *closedError) Error() string {
	if exit, ok := e.cause.(*ExitError); ok {
		return exit.Error() // which names the plugin
	}
	return e.peer + " is gone: " + e.cause.Error()
}

func (e *closedError) Unwrap() error { return e.cause }

func (e *closedError) Is(target error) bool { return target == ErrClosed }

// wrapped is an error with a message of its own that is a sentinel.
type wrapped struct {
	kind    error
	message string
}

func (e *wrapped) Error() string { return e.message }

func (e *wrapped) Unwrap() error { return e.kind }
