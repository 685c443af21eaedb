-- Credit by month, model and channel, in the currency of the conversions: one row to begin with.
select
    tenant_id,
    date_trunc('month', converted_at at time zone 'UTC')::date as month,
    model,
    name as channel,
    currency,
    sum(credit) as conversions,
    sum(value) as net_value
from {{ source('attributary', 'credit') }}
where dimension = 'channel'
group by 1, 2, 3, 4, 5
