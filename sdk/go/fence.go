package worker

import (
	"encoding/json"
	"time"
)

// known is the row of one step of one saga.
type known struct {
	Visit   int32    `json:"visit"`   // the latest visit that was begun
	Undone  int32    `json:"undone"`  // every do up to this visit is refused
	Outcome *Outcome `json:"outcome"` // done or rejected at that visit; nil while it is not known
}

func (k known) isDone() bool { return k.Outcome != nil && k.Outcome.Kind == "done" }

func (k known) output() json.RawMessage {
	if k.isDone() {
		return k.Outcome.Output
	}
	return nil
}

// decision says what to do about a command.
type decision struct {
	ignore bool            // it belongs to the past: acknowledge it without a reply
	reply  *Outcome        // answer without running the handler; the row stays as it is
	done   json.RawMessage // else run the handler; an undo gets the output of the do, if it is known to be done
}

// decide decides about a command by the row and by the clock, both read after the lock: the table of docs/workers.md.
func decide(k known, command *Command, now time.Time) decision {
	visit := command.Visit
	if command.Direction == Undo {
		switch {
		case visit < k.Undone:
			return decision{ignore: true}
		case visit == k.Undone:
			outcome := Done(nil)
			return decision{reply: &outcome}
		}
		return decision{done: k.output()}
	}
	switch {
	case visit <= k.Undone || visit < k.Visit:
		return decision{ignore: true}
	case k.Outcome != nil && (visit == k.Visit || k.isDone()):
		return decision{reply: k.Outcome}
	case command.Deadline != nil && !now.Before(*command.Deadline):
		outcome := Rejected("deadline_passed", nil)
		return decision{reply: &outcome}
	}
	return decision{}
}

// after gives what the row becomes once the handler ran. Failed and Unknown leave only the visit behind.
func after(k known, command *Command, outcome Outcome) known {
	if command.Direction == Undo {
		if outcome.Kind != "done" {
			return k
		}
		return known{Visit: k.Visit, Undone: max(k.Undone, command.Visit)}
	}
	becomes := known{Visit: command.Visit, Undone: k.Undone}
	if outcome.Kind == "done" || outcome.Kind == "rejected" {
		becomes.Outcome = &outcome
	}
	return becomes
}

// completed answers a completion by hand.
type completed struct {
	Version  int      `json:"version"`
	Recorded bool     `json:"recorded"`
	Outcome  *Outcome `json:"outcome,omitempty"`
}

// complete decides about a completion by hand: what the row becomes if it is recorded, and the answer.
func complete(k known, visit int32, output json.RawMessage) (*known, completed) {
	ran := func(outcome Outcome) (*known, completed) {
		return nil, completed{Version: 1, Outcome: &outcome}
	}
	switch {
	case visit <= k.Undone:
		return ran(Rejected("undone", nil))
	case k.Outcome != nil && (visit == k.Visit || k.isDone()):
		return ran(*k.Outcome)
	case visit < k.Visit:
		return ran(Rejected("visit_over", nil))
	}
	outcome := Outcome{Kind: "done", Output: output}
	return &known{Visit: visit, Undone: k.Undone, Outcome: &outcome}, completed{Version: 1, Recorded: true}
}

// timeLimit is how long a command may take: a do at most until its deadline. A late do is answered by the row.
func timeLimit(limit time.Duration, command *Command, now time.Time) time.Duration {
	if command.Direction == Do && command.Deadline != nil {
		if left := command.Deadline.Sub(now); left > 0 {
			return min(limit, left)
		}
	}
	return limit
}
