package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/invopop/jsonschema"
)

var pathParams = regexp.MustCompile(`\{(\w+)\}`)

// openAPI describes the routes as OpenAPI 3.1. The schemas are those of the Go types
// that the handlers read and write.
func openAPI(routes []route) []byte {
	type object = map[string]any
	schemas := object{}
	reflector := jsonschema.Reflector{Anonymous: true}
	// ref adds the type's schema, and those that it refers to, to the document.
	ref := func(v any) object {
		s := reflector.Reflect(v)
		for name, d := range s.Definitions {
			schemas[name] = d
		}
		return object{"$ref": s.Ref}
	}
	content := func(kind string, v any) object {
		return object{kind: object{"schema": ref(v)}}
	}
	problem := object{"description": "the reason of a refusal", "content": content("application/problem+json", api.Problem{})}
	paths := object{}
	for _, rt := range routes {
		params := []object{}
		for _, m := range pathParams.FindAllStringSubmatch(rt.path, -1) {
			params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		for _, p := range rt.query {
			schema := object{"type": p.kind}
			if p.kind == "time" {
				schema = object{"type": "string", "format": "date-time"}
			}
			params = append(params, object{"name": p.name, "in": "query", "description": p.text, "schema": schema})
		}
		success := object{"description": http.StatusText(rt.success())}
		if rt.out != nil {
			success["content"] = content("application/json", rt.out)
		}
		responses := object{strconv.Itoa(rt.success()): success, "default": problem}
		if rt.status == http.StatusAccepted {
			responses["200"] = success // dry_run
		}
		op := object{"summary": rt.summary, "description": "Requires the role " + string(rt.role) + ".", "parameters": params, "responses": responses}
		if rt.method != http.MethodGet {
			op["parameters"] = append(params, object{"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string", "maxLength": api.MaxIdempotencyKey},
				"description": "the manager carries out the same request with the same key once, and answers it alike for a day"})
		}
		if rt.ifMatch {
			op["parameters"] = append(op["parameters"].([]object), object{"name": "If-Match", "in": "header", "schema": object{"type": "string"},
				"description": "the ETag of the rollout that the requester saw, in place of revision in the body; resume, retry and skip need one of them, except a skip of a waiting node while the rollout is not paused: 428 without, 412 if the rollout has changed"})
		}
		if rt.in != nil {
			op["requestBody"] = object{"content": content("application/json", rt.in)}
		}
		if paths[rt.path] == nil {
			paths[rt.path] = object{}
		}
		paths[rt.path].(object)[strings.ToLower(rt.method)] = op
	}
	doc, err := json.Marshal(object{
		"openapi":           "3.1.0",
		"jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
		"info":              object{"title": "manager-sim", "version": "1", "description": "The manager's API. Send a token: Authorization: Bearer TOKEN."},
		"security":          []object{{"bearer": []string{}}},
		"paths":             paths,
		"components": object{
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer"}},
			"schemas":         schemas,
		},
	})
	if err != nil {
		panic(err) // the types are our own: it fails at every start, or never
	}
	return bytes.ReplaceAll(doc, []byte("#/$defs/"), []byte("#/components/schemas/"))
}
