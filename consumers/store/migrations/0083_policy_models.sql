-- Activations of policies that bring versions of trained models along, and who brought a model set into force.

ALTER TABLE attribution_policy_activations ADD COLUMN model_set bigint;
ALTER TABLE attribution_policy_activations ADD COLUMN model_set_before bigint;
COMMENT ON COLUMN attribution_policy_activations.model_set IS 'The model set that it brought into force; null: it left the trained models as they were.';
COMMENT ON COLUMN attribution_policy_activations.model_set_before IS 'The model set in force before it: what a rollback restores; null: it left the trained models as they were.';

ALTER TABLE attribution_model_sets ADD COLUMN activated_by text;
ALTER TABLE attribution_model_sets ALTER COLUMN activated_by SET DEFAULT current_user;
COMMENT ON COLUMN attribution_model_sets.activated_by IS 'The database role that brought it into force; null: before this was noted.';
