-- The text of each version of a workflow, so that every process can read the definition of every saga. It is written once. Rows of
-- releases before this one have no text until a process that has the file deploys it.
alter table workflow_definitions
    add column source text constraint workflow_definitions_source_length check (octet_length(source) <= 65536),
    add column deployed_by text,
    add column deployed_at timestamptz,
    add column verdict jsonb,
    add column accepted_risk text,
    add column retired_by text,
    add column retired_at timestamptz;
comment on column workflow_definitions.source is 'The definition as TOML. It never changes; null: no process has deployed it yet.';
comment on column workflow_definitions.verdict is 'What the model checker found: {verdict: good, broken, unfinished or unchecked, walks}.';
comment on column workflow_definitions.accepted_risk is 'Why a definition was deployed that the checker did not find good.';
comment on column workflow_definitions.retired_at is 'Since when no new sagas begin with this version.';

insert into schema_compatibility (migration, oldest_level, oldest_release) values (211, 201, '0.1.0');
