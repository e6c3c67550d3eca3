{{/*
The prefix of names. The longest name is that of the Service, with 27 characters behind the prefix. It has at most 63, and no dot.
*/}}
{{- define "ecs-image-gc.fullname" -}}
{{- $name := .Values.fullnameOverride | default (.Release.Name | replace "." "-" | trunc 36 | trimSuffix "-") }}
{{- if and (regexMatch "^[0-9]" $name) .Values.metrics.service.enabled
  (not (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version)) }}
{{- fail (printf "Before Kubernetes 1.36, the name of a Service cannot begin with a digit, as %q does. Set fullnameOverride." $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{- define "ecs-image-gc.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (printf "%s-controller-manager" (include "ecs-image-gc.fullname" .)) }}
{{- else -}}
{{- required "serviceAccount.name is required with serviceAccount.create=false: the admission policies name it" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "ecs-image-gc.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/name: ecs-image-gc
app.kubernetes.io/part-of: ecs-image-gc
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
What the Service, the network policy and the Deployment know the pods of this release by.
*/}}
{{- define "ecs-image-gc.selector" -}}
app.kubernetes.io/component: manager
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/name: ecs-image-gc
{{- end }}

{{- define "ecs-image-gc.image" -}}
{{- if and .Values.image.tag .Values.image.digest }}
{{- fail "image.digest is set, and decides which image it is: leave image.tag empty, or set image.digest to \"\"" }}
{{- end }}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/*
The manager's flags. What has the manager's own default is left out.
*/}}
{{- define "ecs-image-gc.args" -}}
{{- $more := list .Values.extraArgs .Values.extraEnv | toJson }}
{{- if and (eq .Values.network "vpc") (not .Values.stsRegion) (not .Values.ecsEndpoint)
  (not (has .Values.credentials.source (list "auto" "rrsa"))) (not (regexMatch "--sts-endpoint=|ALIBABA_CLOUD_STS_REGION|ALIBABA_CLOUD_REGION_ID" $more)) }}
{{- fail "stsRegion is required with network=vpc, unless RRSA sets it" }}
{{- end }}
{{- if .Values.leaderElection.enabled }}
- --leader-elect
{{- end }}
{{- with .Values.namespaces }}
- '--namespaces={{ join "," . }}'
{{- end }}
{{- if ne .Values.credentials.source "auto" }}
- '--credentials={{ .Values.credentials.source }}'
{{- end }}
{{- with .Values.credentials.ambientNamespaces }}
- '--ambient-namespaces={{ join "," . }}'
{{- end }}
{{- if ne .Values.network "public" }}
- '--network={{ .Values.network }}'
{{- end }}
{{- with .Values.stsRegion }}
- '--sts-region={{ . }}'
{{- end }}
{{- with .Values.ecsEndpoint }}
- '--ecs-endpoint={{ . }}'
{{- end }}
{{- if ne .Values.resyncInterval "6h" }}
- '--resync-interval={{ .Values.resyncInterval }}'
{{- end }}
{{- if ne (int .Values.maxConcurrentReconciles) 64 }}
- '--max-concurrent-reconciles={{ .Values.maxConcurrentReconciles }}'
{{- end }}
{{- if ne (int .Values.requestTimeoutSeconds) 45 }}
- '--request-timeout={{ .Values.requestTimeoutSeconds }}s'
{{- end }}
{{- if ne .Values.waitingBackoff "5s,5m" }}
- '--waiting-backoff={{ .Values.waitingBackoff }}'
{{- end }}
{{- if ne .Values.blockedBackoff "30s,10m" }}
- '--blocked-backoff={{ .Values.blockedBackoff }}'
{{- end }}
{{- if ne (toString .Values.logLevel) "info" }}
- '--zap-log-level={{ .Values.logLevel }}'
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
