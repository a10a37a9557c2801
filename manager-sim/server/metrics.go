package server

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the counters of one Server.
type metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec // by severity
	commands prometheus.Counter
	acks     *prometheus.CounterVec // by success
	refused  prometheus.Counter
	denied   prometheus.Counter
	requests *prometheus.HistogramVec // by route and status
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "manager_events_total", Help: "Events of nodes that were new."}, []string{"severity"}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_commands_sent_total", Help: "Commands sent to nodes, repeated ones too."}),
		acks:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "manager_acks_total", Help: "Commands whose outcome a node told, once each."}, []string{"success"}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_node_authentications_refused_total", Help: "Nodes that were not let in."}),
		denied:   prometheus.NewCounter(prometheus.CounterOpts{Name: "manager_denied_total", Help: "Requests that a role did not allow."}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "manager_http_request_duration_seconds", Help: "Time to answer a call of the API."}, []string{"route", "status"}),
	}
	online := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "manager_nodes_online", Help: "Nodes that are connected."}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.sessions))
	})
	m.registry.MustRegister(m.events, m.commands, m.acks, m.refused, m.denied, m.requests, online,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// measured takes the time of a route's answers.
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

// statusWriter remembers the status. A stream flushes through it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
