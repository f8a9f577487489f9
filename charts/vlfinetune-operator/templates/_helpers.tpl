{{- define "vlfinetune.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "vlfinetune.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "vlfinetune.fullname" .) }}
{{- end -}}

{{- define "vlfinetune.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "vlfinetune.labels" -}}
{{ include "vlfinetune.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "vlfinetune.image" -}}
{{ .Values.image.reference | default (printf "vlfinetune/operator:%s" .Chart.AppVersion) }}
{{- end -}}

{{- define "vlfinetune.trainerImage" -}}
{{ .Values.trainer.image | default (printf "vlfinetune/trainer:%s" .Chart.AppVersion) }}
{{- end -}}
