package worker

import (
	"context"
	"database/sql"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

const saga = "01a1fcbd-1604-7519-a173-55615421f06d"

var now = time.Date(2027, 1, 15, 0, 0, 0, 0, time.UTC)

type asked struct {
	Direction string   `json:"direction"`
	Visit     int32    `json:"visit"`
	DeadlineS *float64 `json:"deadline_s"`
}

func (a asked) command() *Command {
	command := &Command{Saga: saga, Step: "print", Direction: a.Direction, Visit: a.Visit}
	if a.DeadlineS != nil {
		deadline := now.Add(time.Duration(*a.DeadlineS * float64(time.Second)))
		command.Deadline = &deadline
	}
	return command
}

// cases are those of sdk/fence-cases.json, which every SDK runs.
func cases(t *testing.T) (all struct {
	Decide []struct {
		Name     string
		Known    known
		Command  asked
		Decision json.RawMessage
	}
	After []struct {
		Name    string
		Known   known
		Command asked
		Outcome Outcome
		Becomes known
	}
	Complete []struct {
		Name    string
		Known   known
		Visit   int32
		Output  json.RawMessage
		Becomes *known
		Answer  json.RawMessage
	}
	Limit []struct {
		asked
		Name      string
		LimitS    float64 `json:"limit_s"`
		ExpectedS float64 `json:"expected_s"`
	}
	Outcomes []struct {
		Name      string
		Outcome   Outcome
		CanBeKept bool `json:"can_be_kept"`
	}
	SQLStates map[string][]string
}) {
	text, err := os.ReadFile("../fence-cases.json")
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// equal compares two values as JSON.
func equal(t *testing.T, found, expected any) {
	t.Helper()
	plain := func(value any) (plain any) {
		text, err := json.Marshal(value)
		if err == nil {
			err = json.Unmarshal(text, &plain)
		}
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	if one, other := plain(found), plain(expected); !reflect.DeepEqual(one, other) {
		t.Errorf("found %v, expected %v", one, other)
	}
}

func TestDecide(t *testing.T) {
	for _, c := range cases(t).Decide {
		t.Run(c.Name, func(t *testing.T) {
			decided := decide(c.Known, c.Command.command(), now)
			switch {
			case decided.ignore:
				equal(t, map[string]any{"ignore": true}, c.Decision)
			case decided.reply != nil:
				equal(t, map[string]any{"reply": decided.reply}, c.Decision)
			default:
				equal(t, map[string]any{"run": map[string]any{"done": decided.done}}, c.Decision)
			}
		})
	}
}

func TestAfter(t *testing.T) {
	for _, c := range cases(t).After {
		t.Run(c.Name, func(t *testing.T) { equal(t, after(c.Known, c.Command.command(), c.Outcome), c.Becomes) })
	}
}

func TestComplete(t *testing.T) {
	for _, c := range cases(t).Complete {
		t.Run(c.Name, func(t *testing.T) {
			becomes, answer := complete(c.Known, c.Visit, c.Output)
			equal(t, becomes, c.Becomes)
			equal(t, answer, c.Answer)
		})
	}
}

func TestLimit(t *testing.T) {
	for _, c := range cases(t).Limit {
		t.Run(c.Name, func(t *testing.T) {
			limit := timeLimit(time.Duration(c.LimitS)*time.Second, c.command(), now)
			equal(t, limit.Seconds(), c.ExpectedS)
		})
	}
}

func TestOutcomes(t *testing.T) {
	for _, c := range cases(t).Outcomes {
		t.Run(c.Name, func(t *testing.T) {
			// The file leaves out what an outcome may leave out.
			if c.Outcome.Kind == "rejected" && c.Outcome.Code == "" {
				t.Skip("an empty code can be kept")
			}
			if err := c.Outcome.check(); (err == nil) != c.CanBeKept {
				t.Error(err)
			}
		})
	}
}

type stateError string

func (e stateError) Error() string    { return "SQLSTATE " + string(e) }
func (e stateError) SQLState() string { return string(e) }

func TestSQLStates(t *testing.T) {
	for name, codes := range cases(t).SQLStates {
		for _, code := range codes {
			away := name == "the database is away"
			equal(t, []any{code, isAway(stateError(code)), isFault(stateError(code))}, []any{code, away, !away})
		}
	}
}

func TestOutcomesThatJSONLacksAreRefused(t *testing.T) {
	for _, output := range []any{map[string]any{"a": math.NaN()}, make(chan int), "text", []int{1}} {
		if Done(output).check() == nil {
			t.Errorf("%v was taken", output)
		}
	}
	equal(t, Done(struct {
		Badge string `json:"badge"`
	}{"B-1"}), json.RawMessage(`{"outcome":"done","output":{"badge":"B-1"}}`))
}

func TestDepthHasABound(t *testing.T) {
	var nested any = 1
	for range 63 {
		nested = []any{nested}
	}
	if err := Done(map[string]any{"a": nested}).check(); err != nil {
		t.Error(err)
	}
	if Done(map[string]any{"a": []any{nested}}).check() == nil {
		t.Error("it was taken")
	}
}

func TestLargeOutputsAreFound(t *testing.T) {
	output := func(bytes int) json.RawMessage {
		return Done(map[string]string{"x": strings.Repeat("y", bytes)}).Output
	}
	full, _ := json.Marshal(strings.Repeat("z", contextBytesMax-1000))
	if isTooLarge([]byte("{}"), output(outputBytesMax-100)) {
		t.Error("a small one is too large")
	}
	if !isTooLarge([]byte("{}"), output(outputBytesMax)) || !isTooLarge(full, output(2000)) {
		t.Error("a large one is not found")
	}
	value, _ := decode([]byte(`{"a":[1,-2.5e-300,null,true,false],"\u0001\"\\":"é\n","b":{}}`))
	real, _ := json.Marshal(value)
	if size := jsonBytes(value); size < len(real) || size > len(real)+60 {
		t.Error(size, len(real))
	}
}

func headers(changes ...string) nats.Header {
	header := nats.Header{"Saga": {saga}, "Step": {"print"}, "Direction": {"do"}, "Visit": {"2"}, "Send": {"1"}, "Message-Id": {"m"}}
	for at := 0; at+1 < len(changes); at += 2 {
		header[changes[at]] = []string{changes[at+1]}
	}
	return header
}

func TestACommandIsReadAndAnswered(t *testing.T) {
	body := []byte(`{"version":1,"workflow":"party","context":{"how":""},"new":1}`)
	command, err := readCommand("steps.printer.print", headers("Deadline", "2027-01-15T00:00:00.123456Z"), body)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, []any{command.Saga, command.Visit, command.Send, command.Name}, []any{saga, 2, 1, "printer.print"})
	equal(t, command.Deadline, now.Add(123456*time.Microsecond))
	reply, err := writeReply(command, Done(map[string]int{"badge": 1}), "host:1")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, reply.Subject, "sagas.reply.printer")
	equal(t, reply.Header, headers("Worker", "host:1"))
	equal(t, json.RawMessage(reply.Data), json.RawMessage(`{"version":1,"outcome":"done","output":{"badge":1}}`))
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	good := []byte(`{"version":1,"workflow":"w","context":{}}`)
	for _, change := range [][]string{
		{"Saga", "x"}, {"Direction", "redo"}, {"Visit", "one"}, {"Visit", "2147483648"}, {"Send", "x"},
		{"Deadline", "soon"}, {"Deadline", "2027-01-15T00:00:00"}, {"Deadline", "1999-01-15T00:00:00Z"},
	} {
		if _, err := readCommand("steps.printer.print", headers(change...), good); err == nil {
			t.Error(change)
		}
	}
	for _, name := range []string{"Saga", "Step", "Direction", "Visit"} {
		header := headers()
		delete(header, name)
		if _, err := readCommand("steps.printer.print", header, good); err == nil {
			t.Error(name)
		}
	}
	for _, body := range []string{"", "[]", `{"version":2,"workflow":"w","context":{}}`, `{"version":1,"workflow":"w"}`} {
		if _, err := readCommand("steps.printer.print", headers(), []byte(body)); err == nil {
			t.Error(body)
		}
	}
	for _, body := range []string{`{"version":1,"output":[]}`, `{"version":1,"output":{"a":"\u0000"}}`} {
		if _, _, err := readCompletion(headers(), []byte(body)); err == nil {
			t.Error(body)
		}
	}
	if _, output, err := readCompletion(headers(), []byte(`{"version":1}`)); err != nil || string(output) != "{}" {
		t.Error(string(output), err)
	}
	if _, _, err := readCompletion(headers("Direction", "undo"), []byte(`{"version":1}`)); err == nil {
		t.Error("an undo cannot be completed")
	}
}

func TestCommandsBelongToTheService(t *testing.T) {
	worker := New("printer", nil)
	worker.Step("seats.hold", func(context.Context, *sql.Tx, *Command) (Outcome, error) { return Done(nil), nil }, "", nil)
	if worker.checkCommands() == nil {
		t.Error("it was taken")
	}
}

func TestThePauseGrowsToAMinute(t *testing.T) {
	equal(t, []any{pauseAfter(1), pauseAfter(4), pauseAfter(1000)}, []any{250 * time.Millisecond, 2 * time.Second, time.Minute})
}

func TestTheReadmeShowsTheExampleAsItIs(t *testing.T) {
	page, _ := os.ReadFile("README.md")
	example, err := os.ReadFile("examples/badges/main.go")
	if err != nil || !strings.Contains(string(page), "```go\n"+string(example)+"```") {
		t.Error("README.md shows another examples/badges/main.go", err)
	}
}
