package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	outputBytesMax  = 256 * 1024 // the output of one step
	contextBytesMax = 768 * 1024 // the input and all outputs of a saga together
	depthMax        = 64         // levels of arrays and objects
)

// Outcome is what a handler answers; make it with Done, Rejected, Failed or Unknown.
type Outcome struct {
	Kind   string          `json:"outcome"`
	Output json.RawMessage `json:"output"` // of done: an object
	Code   string          `json:"code"`   // of rejected and failed
	Detail json.RawMessage `json:"detail"` // of rejected
	Reason string          `json:"reason"` // of unknown
	err    error
}

// Done says that the effect is there. The output, a map or struct, joins the saga's context; nil is an empty one.
func Done(output any) Outcome {
	if output == nil {
		return Outcome{Kind: "done", Output: json.RawMessage("{}")}
	}
	text, err := json.Marshal(output)
	return Outcome{Kind: "done", Output: text, err: err}
}

// Rejected is a business no: nothing was done, and asking again would not change it.
func Rejected(code string, detail any) Outcome {
	text, err := json.Marshal(detail)
	return Outcome{Kind: "rejected", Code: code, Detail: text, err: err}
}

// Failed says that nothing was done this time. The engine tries again.
func Failed(code string) Outcome { return Outcome{Kind: "failed", Code: code} }

// Unknown says that the effect may have taken place. The engine asks again with the same visit.
func Unknown(reason string) Outcome { return Outcome{Kind: "unknown", Reason: reason} }

// fields gives the outcome as it travels.
func (o Outcome) fields() map[string]any {
	switch o.Kind {
	case "done":
		return map[string]any{"outcome": o.Kind, "output": o.Output}
	case "rejected":
		return map[string]any{"outcome": o.Kind, "code": o.Code, "detail": o.Detail}
	case "failed":
		return map[string]any{"outcome": o.Kind, "code": o.Code}
	default:
		return map[string]any{"outcome": o.Kind, "reason": o.Reason}
	}
}

// MarshalJSON writes the fields that belong to the kind.
func (o Outcome) MarshalJSON() ([]byte, error) { return json.Marshal(o.fields()) }

// check reports why the engine's database cannot keep the outcome as it is.
func (o Outcome) check() error {
	switch {
	case o.err != nil:
		return o.err
	case o.Kind == "done":
		value, err := decode(o.Output)
		if err != nil {
			return err
		}
		if _, isObject := value.(map[string]any); !isObject {
			return errors.New("an output must be an object")
		}
		return checkValue(value, "output", 1)
	case o.Kind == "rejected":
		value, err := decode(o.Detail)
		return errors.Join(err, checkValue(o.Code, "code", 1), checkValue(value, "detail", 1))
	case o.Kind == "failed":
		return checkValue(o.Code, "code", 1)
	case o.Kind == "unknown":
		return checkValue(o.Reason, "reason", 1)
	}
	return fmt.Errorf("a handler must return Done, Rejected, Failed or Unknown, not %q", o.Kind)
}

func decode(text json.RawMessage) (any, error) {
	if len(text) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

func checkValue(value any, where string, depth int) error {
	switch value := value.(type) {
	case string:
		if strings.ContainsRune(value, 0) {
			return fmt.Errorf("%s must not have the character U+0000 in it", where)
		}
	case json.Number:
		if !isKept(value) {
			return fmt.Errorf("%s is a number that would be rounded; send it as a string", where)
		}
	case []any:
		if depth > depthMax {
			return fmt.Errorf("%s is nested too deep: %d levels are possible", where, depthMax)
		}
		for at, item := range value {
			if err := checkValue(item, fmt.Sprintf("%s/%d", where, at), depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		if depth > depthMax {
			return fmt.Errorf("%s is nested too deep: %d levels are possible", where, depthMax)
		}
		for name, item := range value {
			if err := errors.Join(checkValue(name, where, depth), checkValue(item, where+"/"+name, depth+1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// isKept reports whether a number means what was sent: a whole one of 64 bits, or one whose digits a float64 keeps.
func isKept(number json.Number) bool {
	if _, err := strconv.ParseInt(number.String(), 10, 64); err == nil {
		return true
	}
	if _, err := strconv.ParseUint(number.String(), 10, 64); err == nil {
		return true
	}
	float, err := number.Float64()
	if err != nil {
		return false
	}
	mantissa, _, _ := strings.Cut(strconv.FormatFloat(math.Abs(float), 'e', -1, 64), "e")
	return math.Abs(float) <= 1<<53 || len(strings.Replace(mantissa, ".", "", 1)) <= 15
}

// isTooLarge reports whether an output would fit no message, alone or with what the saga knows already.
func isTooLarge(context, output json.RawMessage) bool {
	known, _ := decode(context)
	added, _ := decode(output)
	size := jsonBytes(added)
	return size > outputBytesMax || jsonBytes(known)+size > contextBytesMax
}

// jsonBytes is the size as the engine counts it: at least that of the JSON, with 24 bytes for each number.
func jsonBytes(value any) int {
	switch value := value.(type) {
	case string:
		size := 2
		for _, letter := range value {
			switch {
			case letter == '"' || letter == '\\':
				size += 2
			case letter < ' ':
				size += 6
			default:
				size += utf8.RuneLen(letter)
			}
		}
		return size
	case json.Number:
		return 24
	case []any:
		size := 2
		for _, item := range value {
			size += 1 + jsonBytes(item)
		}
		return size
	case map[string]any:
		size := 2
		for name, item := range value {
			size += 2 + jsonBytes(name) + jsonBytes(item)
		}
		return size
	case bool:
		if !value {
			return 5
		}
	}
	return 4
}
