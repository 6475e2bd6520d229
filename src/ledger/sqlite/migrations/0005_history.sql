-- What a refused callback was about, beyond what 0001 keeps of it.
ALTER TABLE refusals ADD COLUMN search_id TEXT;             -- the member `id`
ALTER TABLE refusals ADD COLUMN context_instance_id TEXT;   -- what the context named, which nothing may prove
ALTER TABLE refusals ADD COLUMN context_task_id TEXT;
ALTER TABLE refusals ADD COLUMN context_round TEXT;
ALTER TABLE refusals ADD COLUMN context_business_key TEXT;
