package worker

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// The directions of a command.
const (
	Do   = "do"
	Undo = "undo"
)

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Command is what a handler is asked.
type Command struct {
	Saga      string // a UUID
	Step      string
	Direction string // Do or Undo
	Visit     int32
	Send      int32
	Deadline  *time.Time // only on a do
	Name      string     // such as "printer.print"
	Workflow  string
	Reason    string          // on an undo: why the saga turned back
	Context   json.RawMessage // the saga's input and the outputs of its earlier steps
	Done      json.RawMessage // on an undo: the output of the do; nil if nothing is known to be done
	Headers   nats.Header
}

// Decode reads the context into a struct or map.
func (c *Command) Decode(into any) error { return json.Unmarshal(c.Context, into) }

// readFence reads the headers that name a step of a saga at a visit.
func readFence(headers nats.Header) (*Command, error) {
	command := &Command{Saga: strings.ToLower(headers.Get("Saga")), Step: headers.Get("Step"), Headers: headers}
	if !uuidForm.MatchString(command.Saga) {
		return nil, malformed("Saga")
	}
	if _, isThere := headers["Step"]; !isThere || strings.ContainsRune(command.Step, 0) {
		return nil, malformed("Step")
	}
	if command.Direction = headers.Get("Direction"); command.Direction != Do && command.Direction != Undo {
		return nil, malformed("Direction")
	}
	visit, err := strconv.ParseInt(headers.Get("Visit"), 10, 32)
	if err != nil {
		return nil, malformed("Visit")
	}
	command.Visit = int32(visit)
	if _, isThere := headers["Send"]; isThere {
		send, err := strconv.ParseInt(headers.Get("Send"), 10, 32)
		if err != nil {
			return nil, malformed("Send")
		}
		command.Send = int32(send)
	}
	return command, nil
}

func malformed(header string) error {
	return fmt.Errorf("the header %s is missing or not of its form", header)
}

func readBody(data []byte, body any) error {
	var head struct {
		Version *json.Number `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("the body is not the JSON it should be: %w", err)
	}
	if head.Version == nil || head.Version.String() != "1" {
		return fmt.Errorf("the body is not of version 1")
	}
	return json.Unmarshal(data, body)
}

func readCommand(subject string, headers nats.Header, data []byte) (*Command, error) {
	command, err := readFence(headers)
	if err != nil {
		return nil, err
	}
	var body struct {
		Workflow *string         `json:"workflow"`
		Reason   *string         `json:"reason"`
		Context  json.RawMessage `json:"context"`
	}
	if err := readBody(data, &body); err != nil {
		return nil, err
	}
	if body.Workflow == nil || body.Context == nil {
		return nil, fmt.Errorf("the body lacks workflow or context")
	}
	if body.Reason != nil {
		command.Reason = *body.Reason
	}
	if strings.ContainsRune(command.Reason, 0) {
		return nil, fmt.Errorf("the reason cannot be kept")
	}
	if _, isThere := headers["Deadline"]; isThere {
		deadline, err := time.Parse(time.RFC3339Nano, headers.Get("Deadline"))
		if err != nil || deadline.Year() < 2000 || deadline.Year() >= 2200 {
			return nil, malformed("Deadline")
		}
		command.Deadline = &deadline
	}
	command.Name, command.Workflow, command.Context = strings.TrimPrefix(subject, "steps."), *body.Workflow, body.Context
	return command, nil
}

// readCompletion reads a completion by hand: the step, and the output that it is given.
func readCompletion(headers nats.Header, data []byte) (*Command, json.RawMessage, error) {
	command, err := readFence(headers)
	if err != nil {
		return nil, nil, err
	}
	if command.Direction != Do {
		return nil, nil, malformed("Direction")
	}
	body := struct {
		Output json.RawMessage `json:"output"`
	}{Output: json.RawMessage("{}")}
	if err := readBody(data, &body); err != nil {
		return nil, nil, err
	}
	return command, body.Output, Outcome{Kind: "done", Output: body.Output}.check()
}

// writeReply makes the reply to a command.
func writeReply(command *Command, outcome Outcome, worker string) (*nats.Msg, error) {
	service, _, _ := strings.Cut(command.Name, ".")
	reply := nats.NewMsg("sagas.reply." + service)
	for _, name := range []string{"Saga", "Step", "Direction", "Visit", "Send", "Message-Id", "traceparent"} {
		if values, isThere := command.Headers[name]; isThere {
			reply.Header[name] = values
		}
	}
	reply.Header.Set("Worker", worker)
	fields := outcome.fields()
	fields["version"] = 1
	var err error
	reply.Data, err = json.Marshal(fields)
	return reply, err
}
