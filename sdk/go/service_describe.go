package pipeplug

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
)

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
