// Package greeter is the interface of the service "greeter", which plugin and host share.
package greeter

import (
	"fmt"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

// Name and Version are those of the service.
const (
	Name    = "greeter"
	Version = 1
)

// GreetArguments are the arguments of the method "greet".
type GreetArguments struct {
	Name     string `json:"name" doc:"Name of the person."`
	Language string `json:"language" default:"en" doc:"Code of the language, such as \"en\"."`
}

// GreetError is the reason that a person is not greeted.
type GreetError struct {
	_               pipeplug.OneOf
	UnknownLanguage *UnknownLanguage `json:"UnknownLanguage,omitempty" doc:"The plugin does not speak the language."`
}

// UnknownLanguage is a language that the plugin does not speak.
type UnknownLanguage struct {
	Language string `json:"language" doc:"Code of the language."`
}

func (e *GreetError) Error() string {
	if e.UnknownLanguage == nil {
		return "the person is not greeted"
	}
	return fmt.Sprintf("no greeting in the language %q is known", e.UnknownLanguage.Language)
}
