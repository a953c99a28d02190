{{/* The labels that every object of the chart carries. */}}
{{- define "weir.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "weir.operator.selector" . }}
{{- end }}

{{/* What the operator's pods are known by; it never changes. */}}
{{- define "weir.operator.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The tag of the image. */}}
{{- define "weir.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The image of the operator and of the chart's jobs. */}}
{{- define "weir.image" -}}
{{ .Values.image.repository }}:{{ include "weir.tag" . }}
{{- end }}

{{/* How each container of the chart runs: as the restricted Pod Security standard asks, and on a root it cannot write. */}}
{{- define "weir.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* How each pod of the chart runs. */}}
{{- define "weir.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
