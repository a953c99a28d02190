{{/* What the operator names after the WeirCluster, as the chart's own pods and notes need it. */}}

{{/* The secret with the token. */}}
{{- define "weir.secret" -}}
{{ .Values.cluster.secretName | default (printf "%s-secrets" .Release.Name) }}
{{- end }}

{{/* The secret with the authority of the gRPC certificate; empty where gRPC is in the clear. */}}
{{- define "weir.tls" -}}
{{- $theirs := dig "tls" "secretName" "" .Values.cluster }}
{{- $ours := ternary (printf "%s-tls" .Release.Name) "" (not (empty (dig "engines" "shared" "" .Values.cluster))) }}
{{- $theirs | default $ours }}
{{- end }}

{{/* The port of a Service, by the name of its protocol. */}}
{{- define "weir.port" -}}
{{ dig "exposure" .protocol "port" (get (dict "mqtt" 1883 "http" 8080 "grpc" 8081) .protocol) .cluster }}
{{- end }}
