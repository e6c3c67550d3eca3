-- The health of a CustomImage. Argo CD does not ask for it while the object is being deleted: it says Progressing then.
local ready, stalled
if obj.status ~= nil and obj.status.observedGeneration == obj.metadata.generation then
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == "Ready" then
      ready = condition
    elseif condition.type == "Stalled" and condition.status == "True" then
      stalled = condition
    end
  end
end

if ready == nil then
  return {status = "Progressing", message = "The operator has not checked the object since it was created or changed."}
elseif ready.status == "True" then
  return {status = "Healthy", message = ready.message}
elseif stalled ~= nil then
  return {status = "Degraded", message = stalled.message}
end
return {status = "Progressing", message = ready.message}
