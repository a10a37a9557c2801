package wire_test

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

// A node decodes the frames of its manager, and ignores unknown types.
func ExampleDecode() {
	for _, frame := range []string{
		`{"type":"command","timestamp":"2026-11-26T10:00:00Z","payload":{"command_id":"c1","action":{"type":"upgrade_binary","version":"1.5.0","channel":"stable"}}}`,
		`{"type":"of_a_later_version","payload":{}}`,
	} {
		envelope, err := wire.Decode([]byte(frame))
		if err != nil {
			fmt.Println(err) // log it at debug, and continue
			continue
		}
		switch m := envelope.Message.(type) {
		case *wire.Command:
			fmt.Println(m.CommandID, m.Action.Type, m.Action.Version)
		case *wire.Unknown:
			fmt.Println("ignored:", m.Type)
		}
	}
	// Output:
	// c1 upgrade_binary 1.5.0
	// ignored: of_a_later_version
}

// Every frame has a type, a time and a payload.
func ExampleEncode() {
	frame, err := wire.Encode(&wire.EventAck{EventIDs: []string{"e1"}}, time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC))
	fmt.Println(string(frame), err)
	// Output: {"type":"event_ack","timestamp":"2026-11-26T10:00:00.000Z","payload":{"event_ids":["e1"]}} <nil>
}
