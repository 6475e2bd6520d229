{{- define "countersign.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "countersign.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "countersign.labels" -}}
{{ include "countersign.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "countersign.image" -}}
{{- if .Values.image.digest -}}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The configuration as a map: what the values say, and what the chart sets. */}}
{{- define "countersign.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range list "http" "admin" "ledger" -}}
{{- if not (hasKey $config .) }}{{ $_ := set $config . dict }}{{ end -}}
{{- end -}}
{{- $_ := set $config.http "listen" "0.0.0.0:8080" -}}
{{- $_ := set $config.admin "listen" "0.0.0.0:9090" -}}
{{- if eq .Values.ledger.kind "sqlite" -}}
{{- if or $config.ledger.url $config.ledger.url_file }}{{ fail "ledger.kind is sqlite, whose place the chart says: config.ledger.url and config.ledger.url_file are for postgresql" }}{{ end -}}
{{- $_ := set $config.ledger "url" "sqlite:/var/lib/countersign/countersign.db" -}}
{{- else -}}
{{- if not (or $config.ledger.url $config.ledger.url_file) }}{{ fail "ledger.kind is postgresql: config.ledger.url must say where it is, or config.ledger.url_file" }}{{ end -}}
{{- /* A pod that ends is sent callbacks until all nodes have heard of it. */ -}}
{{- if not (hasKey $config "shutdown_delay_ms") }}{{ $_ := set $config "shutdown_delay_ms" 5000 }}{{ end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* Both waits of a stop, and 15 s. Their defaults are those of the program. */}}
{{- define "countersign.grace" -}}
{{- $config := include "countersign.config" . | fromJson -}}
{{- $delay := dig "shutdown_delay_ms" 0 $config -}}
{{- $grace := dig "shutdown_grace_ms" 10000 $config -}}
{{- add (ceil (divf (addf $delay $grace) 1000)) 15 -}}
{{- end -}}

{{/* TOML by our own hand: toToml writes each number as a float, which is a fault in most keys.
First the plain values of a table, then the tables in it: [path], or [[path]] for each of a list. */}}
{{- define "countersign.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) -}}
{{- else if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "countersign.toml.key" $key }} = {{ include "countersign.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- $below := append $path (include "countersign.toml.key" $key) -}}
{{- if kindIs "map" $value }}
[{{ join "." $below }}]
{{- include "countersign.toml" (dict "path" $below "table" $value) }}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) -}}
{{- range $value }}
[[{{ join "." $below }}]]
{{- include "countersign.toml" (dict "path" $below "table" .) }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "countersign.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- define "countersign.toml.value" -}}
{{- if kindIs "slice" . -}}
{{- $all := list }}{{ range . }}{{ $all = append $all (include "countersign.toml.value" .) }}{{ end -}}
[{{ join ", " $all }}]
{{- else if kindIs "map" . -}}
{{- $all := list }}{{ range $key, $value := . }}{{ $all = append $all (printf "%s = %s" (include "countersign.toml.key" $key) (include "countersign.toml.value" $value)) }}{{ end -}}
{ {{ join ", " $all }} }
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* The pod, which Deployment and StatefulSet share. */}}
{{- define "countersign.pod" -}}
metadata:
  annotations:
    # Another configuration is another pod.
    checksum/config: {{ include "countersign.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
  labels:
    {{- include "countersign.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "countersign.name" . }}
  # It asks nothing of Kubernetes.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "countersign.grace" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    seccompProfile: { type: RuntimeDefault }
    fsGroupChangePolicy: OnRootMismatch
    {{- with .Values.podSecurityContext }}{{ toYaml . | nindent 4 }}{{ end }}
  containers:
    - name: countersign
      image: {{ include "countersign.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      {{- with .Values.env }}
      env: {{ toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - { name: callbacks, containerPort: 8080 }
        - { name: internal, containerPort: 9090 }
      # A start reads the tail of the ledger, and may have tables to change.
      startupProbe:
        httpGet: { path: /livez, port: internal }
        periodSeconds: 2
        failureThreshold: 150
      # Neither broker nor PostgreSQL counts here: a restart brings neither back.
      livenessProbe:
        httpGet: { path: /livez, port: internal }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # It looks at the ledger for 800 ms.
      readinessProbe:
        httpGet: { path: /readyz, port: internal }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- with .Values.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        - { name: config, mountPath: /etc/countersign, readOnly: true }
        - { name: secrets, mountPath: /run/secrets/countersign, readOnly: true }
        {{- if eq .Values.ledger.kind "sqlite" }}
        - { name: ledger, mountPath: /var/lib/countersign }
        # SQLite sorts here what does not fit into memory.
        - { name: tmp, mountPath: /tmp }
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "countersign.name" . }} }
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range .Values.secrets }}
          - secret: { name: {{ . }} }
          {{- end }}
    {{- if eq .Values.ledger.kind "sqlite" }}
    - name: tmp
      emptyDir: { sizeLimit: 256Mi }
    {{- else }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      # A replica in a crowded zone is better than none.
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "countersign.selector" $ | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
