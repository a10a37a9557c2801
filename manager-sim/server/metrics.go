package server

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the counters of one Server. It is a nodes.Metrics.
type metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec // by severity
	commands prometheus.Counter
	acks     *prometheus.CounterVec // by success
	refused  prometheus.Counter
	denied   prometheus.Counter
	requests *prometheus.HistogramVec // by route and status
}

// newMetrics returns counters. online returns how many nodes are connected.
func newMetrics(online func() int) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "manager_events_total", Help: "New events of nodes."}, []string{"severity"}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_commands_sent_total", Help: "Commands sent to nodes, including repetitions."}),
		acks:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "manager_acks_total", Help: "Commands that a node acknowledged, once each."}, []string{"success"}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_node_authentications_refused_total", Help: "Authentications of nodes that were refused."}),
		denied:   prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_denied_total", Help: "Requests that a role did not allow."}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "manager_http_request_duration_seconds", Help: "Time to answer a request of the API."}, []string{"route", "status"}),
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "manager_nodes_online", Help: "Nodes that are connected."}, func() float64 { return float64(online()) })
	m.registry.MustRegister(m.events, m.commands, m.acks, m.refused, m.denied, m.requests, gauge,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// EventStored counts a new event.
func (m *metrics) EventStored(severity string) { m.events.WithLabelValues(severity).Inc() }

// CommandSent counts a command that was sent.
func (m *metrics) CommandSent() { m.commands.Inc() }

// CommandAcknowledged counts the first acknowledgement of a command.
func (m *metrics) CommandAcknowledged(success bool) {
	m.acks.WithLabelValues(strconv.FormatBool(success)).Inc()
}

// AuthenticationRefused counts a node that was not accepted.
func (m *metrics) AuthenticationRefused() { m.refused.Inc() }

func (m *metrics) serve(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// measured measures how long the answers of a route take.
func (m *metrics) measured(route string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		t := prometheus.NewTimer(prometheus.ObserverFunc(func(secs float64) {
			m.requests.WithLabelValues(route, strconv.Itoa(status.status)).Observe(secs)
		}))
		defer t.ObserveDuration()
		h(status, r)
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader writes the status.
func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap returns the answer, so that a stream can flush it.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
