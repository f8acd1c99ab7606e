select exists (
    select from workflow_definitions
    where workflow = $1 and version = $2 and retired_at is null
    for share
) as is_current
