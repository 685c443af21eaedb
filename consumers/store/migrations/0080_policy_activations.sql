-- Which lookback policy is in force for a tenant, since when, and who said so. The newest row of a tenant counts.

CREATE TABLE attribution_policy_activations (
    tenant_id         text COLLATE "C" NOT NULL,
    activation_number bigint GENERATED ALWAYS AS IDENTITY,
    policy_version    text,
    activated_at      timestamptz      NOT NULL DEFAULT clock_timestamp(),
    activated_by      text             NOT NULL DEFAULT current_user,
    note              text,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    updated_at        timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, activation_number)
);
COMMENT ON TABLE attribution_policy_activations IS 'Lookback policies that were brought into force by tenant; rows are only added. The newest of a tenant counts; without one, the file of ATTRIBUTION_POLICY_FILE.';
COMMENT ON COLUMN attribution_policy_activations.tenant_id IS 'The tenant.';
COMMENT ON COLUMN attribution_policy_activations.activation_number IS 'Rises with each activation.';
COMMENT ON COLUMN attribution_policy_activations.policy_version IS 'The policy, of attribution_policies; null: the file again.';
COMMENT ON COLUMN attribution_policy_activations.activated_at IS 'Versions that are raised from then on pin it.';
COMMENT ON COLUMN attribution_policy_activations.activated_by IS 'The database role that did it.';
COMMENT ON COLUMN attribution_policy_activations.note IS 'Why, in the words of whoever did it; no personal data.';
COMMENT ON COLUMN attribution_policy_activations.created_at IS 'When the row was written.';
COMMENT ON COLUMN attribution_policy_activations.updated_at IS 'The same: rows never change.';
