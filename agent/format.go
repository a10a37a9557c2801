package agent

import "fmt"

// Format writes the name of the type, whatever the verb: the fields hold the node's secret and the
// text of its configuration.
func (a *Agent) Format(f fmt.State, _ rune) { fmt.Fprint(f, a.String()) }

// String returns the name of the type. Without it, text/template and html/template would follow
// the pointer, and write the fields.
func (a *Agent) String() string { return "agent.Agent" }
