package pipeplug

import "context"

type valuesKey struct{}

// WithValue returns a context whose calls carry a string for their handlers, such as "traceparent".
// Calls that the handlers make in turn, with their context, carry it as well.
func WithValue(ctx context.Context, key, value string) context.Context {
	values := map[string]string{key: value}
	for k, v := range Values(ctx) {
		if k != key {
			values[k] = v
		}
	}
	return context.WithValue(ctx, valuesKey{}, values)
}

// Values returns what the caller of a handler, or WithValue, has put into a context. It must not
// be changed.
func Values(ctx context.Context) map[string]string {
	values, _ := ctx.Value(valuesKey{}).(map[string]string)
	return values
}
