package pipeplug

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// OneOf marks a struct as a choice: exactly one of its fields, which are pointers, is set. Put a
// field "_ pipeplug.OneOf" into the struct. It is what Rust has as an enum.
type OneOf struct{}

// fieldInfo is a field of a struct as JSON has it.
type fieldInfo struct {
	name        string
	index       []int
	t           reflect.Type
	doc         string
	required    bool
	nullable    bool
	hasDefault  bool
	defaultJSON json.RawMessage
}

// fieldsOf lists the fields that package json would encode; those of embedded structs count.
func fieldsOf(t reflect.Type) []fieldInfo {
	var fields []fieldInfo
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" {
			continue
		}
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields = append(fields, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		info := fieldInfo{name: name, index: []int{i}, t: f.Type, doc: f.Tag.Get("doc")}
		switch f.Type.Kind() {
		case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
			info.nullable = true
		}
		info.required = f.Type.Kind() != reflect.Pointer && !strings.Contains(","+options+",", ",omitempty,")
		if text, ok := f.Tag.Lookup("default"); ok {
			info.hasDefault, info.required = true, false
			info.defaultJSON = json.RawMessage(text)
			if f.Type.Kind() == reflect.String && !strings.HasPrefix(text, `"`) || !json.Valid(info.defaultJSON) {
				info.defaultJSON, _ = json.Marshal(text)
			}
		}
		fields = append(fields, info)
	}
	return fields
}

// schemas makes JSON Schemas of Go types. Structs with a name are in the definitions.
type schemas struct {
	defs  map[string]any
	names map[reflect.Type]string
}

func newSchemas() *schemas {
	return &schemas{defs: map[string]any{}, names: map[reflect.Type]string{}}
}

var (
	marshalerType     = reflect.TypeOf((*json.Marshaler)(nil)).Elem()
	textMarshalerType = reflect.TypeOf((*encoding.TextMarshaler)(nil)).Elem()
	timeType          = reflect.TypeOf(time.Time{})
	oneOfType         = reflect.TypeOf(OneOf{})
)

// of is the schema of a type.
func (s *schemas) of(t reflect.Type) any {
	switch {
	case t == timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Implements(marshalerType) || reflect.PointerTo(t).Implements(marshalerType):
		return true
	case t.Implements(textMarshalerType) || reflect.PointerTo(t).Implements(textMarshalerType):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return map[string]any{"type": "string", "contentEncoding": "base64"}
		}
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Array:
		return map[string]any{"type": "array", "items": s.of(t.Elem()), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		if t.Name() == "" {
			return s.inline(t)
		}
		name, ok := s.names[t]
		if !ok {
			name = s.freeName(t.Name())
			s.names[t] = name
			s.defs[name] = true // a type may contain itself
			s.defs[name] = s.inline(t)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	}
	return true
}

func (s *schemas) freeName(name string) string {
	name, _, _ = strings.Cut(name, "[") // of a generic type
	free := name
	for i := 2; s.defs[free] != nil; i++ {
		free = fmt.Sprintf("%s%d", name, i)
	}
	return free
}

// inline is the schema of a struct itself, without a reference.
func (s *schemas) inline(t reflect.Type) any {
	if t.Kind() != reflect.Struct {
		return s.of(t)
	}
	properties := map[string]any{}
	var required []string
	var choices []any
	for _, f := range fieldsOf(t) {
		schema := s.of(f.t)
		if f.doc != "" || f.hasDefault {
			schema = s.annotated(schema, f)
		}
		if f.t.Kind() == reflect.Pointer && !isOneOf(t) {
			schema = map[string]any{"anyOf": []any{schema, map[string]any{"type": "null"}}}
		}
		properties[f.name] = schema
		if f.required {
			required = append(required, f.name)
		}
		choices = append(choices, map[string]any{
			"type": "object", "properties": map[string]any{f.name: schema},
			"required": []string{f.name}, "additionalProperties": false,
		})
	}
	if isOneOf(t) {
		return map[string]any{"oneOf": choices}
	}
	object := map[string]any{"type": "object", "properties": properties}
	if required != nil {
		object["required"] = required
	}
	return object
}

func isOneOf(t reflect.Type) bool {
	for i := 0; i < t.NumField(); i++ {
		if t.Field(i).Type == oneOfType {
			return true
		}
	}
	return false
}

// annotated adds docs and default to a schema.
func (s *schemas) annotated(schema any, f fieldInfo) any {
	with := map[string]any{}
	if object, ok := schema.(map[string]any); ok {
		for key, value := range object {
			with[key] = value
		}
	}
	if f.doc != "" {
		with["description"] = f.doc
	}
	if f.hasDefault {
		with["default"] = f.defaultJSON
	}
	return with
}
